from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import jobs_of

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec
from lth_core.jobs.recipes import Job
from lth_core.store import MANIFEST, Store, open_store
from lth_core.train.timings import KIND, seconds_per_step, speed_key, store_speed

JOB = jobs_of(TicketSpec(levels=0))[0]["dense"]
TRAIN = JOB.train


def of(**changes: object) -> Job:
    return replace(JOB, **changes)  # type: ignore[arg-type]


def test_speed_is_found_again_of_jobs_that_are_as_fast() -> None:
    store = Store()
    assert seconds_per_step(store, JOB, "cpu") is None
    store_speed(store, JOB, 0.004, torch.device("cpu"))
    store_speed(store, JOB, 0.002, "cpu")
    alike = of(
        seed=7,
        level=3,
        first=9,
        train=replace(TRAIN, lr=0.5, steps=90),
        data=DataSpec(split_seed=3),
    )
    assert seconds_per_step(store, alike, "cpu") == 0.002
    assert store.digests(KIND) == [speed_key(JOB, "cpu")]


@pytest.mark.parametrize("steps", [200, 300, 3000])
def test_training_of_another_length_is_as_fast_whatever_its_default_grid(steps: int) -> None:
    (other, *_) = jobs_of(TicketSpec(levels=0, train=TrainSpec(steps=steps)))
    assert other["dense"].train.evaluate_every != TRAIN.evaluate_every
    assert speed_key(other["dense"], "cpu") == speed_key(JOB, "cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": DataSpec(name="mnist1d")},
        {"data": DataSpec(fraction=0.5)},
        {"model": ModelSpec(width=0.5)},
        {"train": replace(TRAIN, batch_size=30)},
        {"train": replace(TRAIN, precision="bf16")},
        {"train": replace(TRAIN, optimizer="sgd")},
        {"train": replace(TRAIN, evaluate_every=1)},
        {"finds": PruneSpec(when="during")},
    ],
)
def test_what_makes_a_step_longer_is_another_speed(changes: dict[str, object]) -> None:
    assert speed_key(of(**changes), "cpu") != speed_key(JOB, "cpu")


def test_evaluating_fewer_test_examples_is_another_speed() -> None:
    grid, best = (
        of(train=replace(TRAIN, evaluate_every=1, evaluate_test=name)) for name in ("grid", "best")
    )
    assert speed_key(grid, "cpu") != speed_key(best, "cpu")


def test_another_kind_of_device_is_another_speed_and_another_card_is_not() -> None:
    assert speed_key(JOB, "cuda") != speed_key(JOB, "cpu")
    assert speed_key(JOB, "cuda:0") == speed_key(JOB, "cuda:1")


def test_torn_speed_is_no_speed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store_speed(store, JOB, 0.004, "cpu")
    (tmp_path / KIND / speed_key(JOB, "cpu") / MANIFEST).write_text('{"entry"')
    assert seconds_per_step(store, JOB, "cpu") is None


@pytest.mark.parametrize(
    "content",
    [{}, {"seconds_per_step": "fast"}, {"seconds_per_step": -1.0}, {"seconds_per_step": 9**999}],
)
def test_speed_of_another_program_is_ignored_with_a_warning(
    content: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    store.put(KIND, speed_key(JOB, "cpu"), content)
    assert seconds_per_step(store, JOB, "cpu") is None
    assert f"{KIND}/{speed_key(JOB, 'cpu')}: cannot be read" in caplog.text
