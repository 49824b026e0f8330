"""Stored entries of another program or version count as missing, with a warning."""

from typing import Any

import pytest
import torch

from lth_core import ModelSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.jobs.recipes import Job
from lth_core.store import Store
from lth_core.train.archive import Archive, to_blobs
from lth_core.train.training import Training

SPEC = TicketSpec(
    model=ModelSpec(widths=(4,)), train=TrainSpec(steps=4, evaluate_every=2), levels=0
)


def trained() -> tuple[Store, Trainer, Job]:
    store = Store()
    trainer = Trainer(store, "cpu")
    return store, trainer, next(iter(find_tickets(SPEC, trainer))).results["dense"].job


LIST: list[Any] = []
WRONG: list[dict[str, Any]] = [
    {"curves": dict.fromkeys(("step", "train_loss", "validation_loss", "validation_accuracy", "test_accuracy"), LIST)},
    {"curves": {"step": [1]}},
    {"curves": []},
    {"curves": {"step": [2, 4], "train_loss": [1.0, 1.0], "validation_loss": [1.0, 1.0],
                "validation_accuracy": [0.5, 0.5], "test_accuracy": [0.5, None]}},
    {"curves": {"step": [2, 4], "train_loss": [1.0, 1.0], "validation_loss": [1.0, 1.0],
                "validation_accuracy": [0.5, 0.5], "test_accuracy": [None, 0.5]}},
    {"layers": {}},
    {"layers": {"fc1": {"shape": [4, 64], "kept": 257, "positions": 1}}},
    {"layers": {"fc1": {"shape": [4, "64"], "kept": 1, "positions": 1}}},
    {"parameters": 10**400},
    {"seconds": "long"},
    {"made_with": None},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG)
def test_training_of_another_program_counts_as_missing(
    change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    store, _, job = trained()
    assert Archive(store).training(job) is not None
    meta = store.get("trainings", job.digest).meta  # type: ignore[union-attr]
    store.put("trainings", job.digest, {**meta, **change})
    assert Archive(store).training(job) is None
    assert f"trainings/{job.digest}: is not a training (TypeError: " in caplog.text


def test_training_that_another_version_stored_with_more_fields_is_read() -> None:
    store, _, job = trained()
    meta = store.get("trainings", job.digest).meta  # type: ignore[union-attr]
    layer = {**meta["layers"]["fc1"], "bits": 1}
    more = {"travel": 0.5, "layers": {**meta["layers"], "fc1": layer}}
    store.put("trainings", job.digest, {**meta, **more})
    assert Archive(store).training(job) == Training.from_json(meta)


@pytest.mark.parametrize("name", ["curves", "layers", "mask_digest", "seconds"])
def test_training_without_a_field_that_all_have_is_none(name: str) -> None:
    store, _, job = trained()
    meta = store.get("trainings", job.digest).meta  # type: ignore[union-attr]
    store.put("trainings", job.digest, {n: v for n, v in meta.items() if n != name})
    assert Archive(store).training(job) is None


def test_point_without_blobs_is_none_and_the_next_place_is_looked_at(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, trainer, job = trained()
    store.put("points", job.digest, {})
    found = Archive(store).state(job, trainer.model(job))
    assert found is not None
    assert f"store: points/{job.digest}: state: cannot be read (KeyError" in caplog.text


@pytest.mark.parametrize("change", ["type", "shape", "more"])
def test_state_of_another_network_is_none(change: str) -> None:
    store, trainer, job = trained()
    state, mask = trainer.final(job)
    harm = {
        "type": {"fc1.bias": torch.zeros(4, dtype=torch.uint16)},
        "shape": {"fc1.bias": torch.zeros(5)},
        "more": {"fc9.bias": torch.zeros(4)},
    }[change]
    store.put("points", job.digest, {}, to_blobs({**state, **harm}, mask))
    store.delete("trainings", job.digest)
    assert Archive(store).state(job, trainer.model(job)) is None


@pytest.mark.parametrize("content", [{"a": "x"}, {"a": [1.0]}, {"a": 10**400}, {"a": True}])
def test_measure_of_another_program_counts_as_missing(
    content: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    store.put("measures", "sound", {"a": 1.0, "b": None, "c": 1})
    store.put("measures", "other", content)
    kept = Archive(store)
    assert kept.entry("measures", "sound") is not None
    assert kept.entry("measures", "other") is None
    assert "measures/other: cannot be read" in caplog.text
