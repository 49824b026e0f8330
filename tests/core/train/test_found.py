"""Masks that a run finds are remembered like its weights."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from toys import jobs_of, same, timeless

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets, open_store
from lth_core.errors import StoreError
from lth_core.masks import digest, masked
from lth_core.results import LevelResult
from lth_core.train.loop import Outcome

WAYS: dict[str, dict[str, Any]] = {
    "rigl": {"when": "during", "grow": "gradient", "begin": 8, "every": 3},
    "gmp": {"when": "during", "begin": 8, "every": 3},
    "edge-popup": {"when": "never", "score": "edge-popup"},
    "snip": {"when": "before", "score": "snip"},
}


def search(way: str, **prune: Any) -> TicketSpec:
    return TicketSpec(
        model=ModelSpec(widths=(32, 16)), train=TrainSpec(lr=0.01, steps=20, evaluate_every=20),
        prune=PruneSpec(fraction=0.6, **WAYS[way], **prune), levels=2, rewind=7,
        branches=("ticket", "shuffled_mask", "trained"),
    )  # fmt: skip


def numbers(levels: list[LevelResult]) -> list[dict[str, object]]:
    return [timeless(record) for level in levels for record in level.records]


class Idle(Trainer):
    """Fails when it would train a step."""

    def _run(self, *args: Any, **kwargs: Any) -> Outcome:
        raise AssertionError("trained again")


Stored = Callable[[str], tuple[Path, list[LevelResult]]]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A way's search, trained once: its store, which tests that write copy, and its levels."""

    @cache
    def stored(way: str) -> tuple[Path, list[LevelResult]]:
        folder = tmp_path_factory.mktemp("stored")
        return folder, list(find_tickets(search(way), Trainer(open_store(str(folder)))))

    return stored


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_search_resumed_from_the_store_trains_nothing_again(way: str, stored: Stored) -> None:
    folder, first = stored(way)
    again = list(find_tickets(search(way), Idle(open_store(str(folder)))))
    assert all(result.reused for level in again for result in level.results.values())
    assert numbers(again) == numbers(first)
    for one, two in zip(first, again, strict=True):
        assert same(two.mask, one.mask)
        assert two.ticket.digest == one.ticket.digest
        assert digest(two.ticket.mask) == two.records[0]["mask_digest"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["rigl", "edge-popup"])
def test_search_stopped_between_levels_resumes_there(
    way: str, stored: Stored, tmp_path: Path
) -> None:
    spec, store = search(way), str(tmp_path)
    list(find_tickets(replace(spec, levels=1), Trainer(open_store(store))))
    found = list(find_tickets(spec, Trainer(open_store(store))))
    reused = [all(r.reused for r in level.results.values()) for level in found]
    assert reused == [True, True, False]
    assert numbers(found) == numbers(stored(way)[1])


@pytest.mark.parametrize("way", ["rigl", "edge-popup"])
@pytest.mark.slow
def test_further_control_finds_the_mask_in_the_store(
    way: str, stored: Stored, tmp_path: Path
) -> None:
    shutil.copytree(stored(way)[0], tmp_path, dirs_exist_ok=True)
    more = replace(search(way), branches=("ticket", "reinit"))
    levels = list(find_tickets(more, Trainer(open_store(str(tmp_path)))))
    for level in levels[1:]:
        assert [result.reused for result in level.results.values()] == [True, False]
        own = level.trainer.final(level.results["reinit"].job)[1]
        assert digest(own) == digest(level.mask)


@pytest.mark.parametrize(
    ("way", "damage"), [("rigl", "cut"), ("edge-popup", "altered"), ("rigl", "gone")]
)
def test_corrupt_mask_is_reported_and_found_again(
    way: str, damage: str, stored: Stored, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, (folder, first) = search(way), stored(way)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    job = first[1].results["ticket"].job
    (file,) = (tmp_path / "trainings" / job.digest).glob("mask*")
    if damage == "gone":
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"\1")
    trainer = Trainer(open_store(str(tmp_path)))
    with caplog.at_level(logging.WARNING, "lth"):
        again = list(find_tickets(spec, trainer))
        mask = again[1].mask
    assert any("computed again" in message for message in caplog.messages)
    assert digest(mask) == digest(first[1].mask)
    assert numbers(again) == numbers(first)
    assert same(Idle(open_store(str(tmp_path))).mask_of(job), mask)


def test_frozen_trainer_reads_what_was_found_and_never_trains(
    stored: Stored, tmp_path: Path
) -> None:
    spec, (folder, first) = search("rigl"), stored("rigl")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    frozen = Trainer(open_store(str(tmp_path)), frozen=True)
    levels = list(find_tickets(spec, frozen))
    assert numbers(levels) == numbers(first)
    assert [level.ticket.digest for level in levels] == [level.ticket.digest for level in first]
    job = jobs_of(spec)[2]["ticket"]
    for file in (tmp_path / "trainings" / job.digest).glob("mask*"):
        file.unlink()
    with pytest.raises(StoreError, match=f"lost training {job.digest}"):
        Trainer(open_store(str(tmp_path)), frozen=True).mask_of(job)
    with pytest.raises(StoreError, match="lost training"):
        list(find_tickets(replace(spec, seed=1), frozen))


@pytest.mark.parametrize("way", ["rigl", "gmp", "edge-popup"])
def test_state_read_back_is_the_state_under_the_mask_found(way: str, stored: Stored) -> None:
    folder, levels = stored(way)
    job = levels[1].results["ticket"].job
    state, mask = levels[1].trainer.final(job)
    read, mask_read = Idle(open_store(str(folder))).final(job)
    assert same(mask, mask_read)
    assert same(read, masked(state, mask))
    assert same(read, state)


@pytest.mark.parametrize("way", WAYS)
def test_layer_collapse_is_flagged_and_leaves_every_number_finite(
    way: str, trainer: Trainer
) -> None:
    """At a density of some weights in all, a layer or more is gone."""
    spec = search(way, layer_fractions={"fc2": 0.99999, "fc1": 0.9995})
    level = list(find_tickets(replace(spec, levels=1), trainer))[1]
    for row in level.records:
        assert row["collapsed_layers"] >= 1
        assert row["layer_density"]["fc2"] == 0
        curves = level.results[row["branch"]].training.curves
        assert all(0 < loss < 100 for loss in (*curves.train_loss, *curves.validation_loss))
        assert row["travel"] is not None
        assert 0 <= row["travel"] < 100


def test_network_without_a_weight_is_evaluated_and_has_no_travel(trainer: Trainer) -> None:
    for way in ("gmp", "edge-popup", "snip"):
        spec = replace(search(way), levels=1, branches=("ticket", "reinit"))
        level = list(
            find_tickets(replace(spec, prune=replace(spec.prune, fraction=0.99999)), trainer)
        )[1]
        for row in level.records:
            assert (row["weights_kept"], row["collapsed_layers"]) == (0, 3)
            assert row["travel"] is row["sign_agreement"] is row["travel_inside"] is None
            assert row["mask_overlap"] == row["mask_overlap_chance"] == 1
            assert row["final_test_accuracy"] < 0.3
