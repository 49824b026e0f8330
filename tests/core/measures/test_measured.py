"""Measures in records, and remembered by the store."""

import json
from dataclasses import dataclass, field, replace
from math import nan

import pytest
import torch
from toys import timeless

from lth_core import TicketSpec, Trainer, find_tickets
from lth_core.jobs.recipes import Context, Job, Measure
from lth_core.results import LevelResult
from lth_core.spec import NOT_DECIDING

AT_REWIND = {
    "rewind_distance", "rewind_cosine", "rewind_sign_agreement",
    "rewind_loss", "rewind_gradient_norm", "rewind_curvature",
}  # fmt: skip
OF_MASKS = {"rewind_mask_overlap", "rewind_mask_overlap_chance"}


@pytest.fixture(scope="module")
def searched(small: TicketSpec) -> list[LevelResult]:
    """With both kinds of measures, over a store of its own."""
    spec = replace(small, branches=("ticket", "reinit", "twin"), predictors=True, levels=1)
    return list(find_tickets(spec, Trainer()))


def test_records_of_dense_run_and_tickets_hold_the_predictors(
    searched: list[LevelResult], small: TicketSpec
) -> None:
    columns = {}
    for level in searched:
        for row in level.records:
            columns[level.level, row["branch"]] = {n for n in row if n.startswith("rewind_")}
            assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert columns == {
        (0, "dense"): {"rewind_step"} | AT_REWIND,
        (0, "rewound"): {"rewind_step"},
        (0, "twin"): {"rewind_step"},
        (1, "ticket"): {"rewind_step"} | OF_MASKS,
        (1, "reinit"): {"rewind_step"},
        (1, "twin"): {"rewind_step"},
    }
    plain = replace(searched[0], spec=replace(searched[0].spec, predictors=False))
    assert set(searched[0].records[0]) - set(plain.records[0]) == AT_REWIND


def test_what_was_measured_is_remembered_by_the_store(searched: list[LevelResult]) -> None:
    store = searched[0].trainer.store
    rows = [timeless(row) for level in searched for row in level.records]
    # One of each branch's mask and travel; and of the dense run, of the ticket and of two twins.
    stored = len(rows) + 4
    assert len(store.digests("measures")) == stored
    trainings = len(store.digests("trainings"))
    for trainer in (Trainer(store), Trainer(store, frozen=True)):
        again = [timeless(row) for level in searched
                 for row in replace(level, trainer=trainer).records]  # fmt: skip
        assert again == rows
    assert (len(store.digests("measures")), len(store.digests("trainings"))) == (stored, trainings)


def test_order_of_asking_changes_no_value(searched: list[LevelResult]) -> None:
    """From the trainings alone, the last first."""
    store = Trainer().store
    known = searched[0].trainer.store
    for digest in known.digests("trainings"):
        entry = known.get("trainings", digest)
        assert entry is not None
        store.put("trainings", digest, entry.meta, {name: entry.blob(name) for name in entry.blobs})
    trainer = Trainer(store)
    torch.rand(2)
    for level in reversed(searched):
        again = replace(level, trainer=trainer).records
        assert [timeless(r) for r in again] == [timeless(r) for r in level.records]


@dataclass(frozen=True, kw_only=True, eq=False)
class Noted(Measure):
    """Notes each time that it is taken; some of its numbers are none."""

    kind = "Noted"
    columns = ("a", "b", "c", "d")

    job: Job
    times: list[int] = field(metadata=NOT_DECIDING)

    def take(self, context: Context) -> dict[str, float | None]:
        self.times.append(1)
        return {"a": 0.5, "b": nan, "c": float("inf"), "d": None}


def test_measure_is_taken_once_and_what_is_no_number_is_none(searched: list[LevelResult]) -> None:
    trainer, times = Trainer(), list[int]()
    job = searched[0].results["dense"].job
    expected = {"a": 0.5, "b": None, "c": None, "d": None}
    for asked in (trainer, trainer, Trainer(trainer.store), Trainer(trainer.store, frozen=True)):
        assert asked.measured(Noted(job=job, times=times)) == expected
    assert len(times) == 1
    trainer.measured(Noted(job=replace(job, seed=1), times=times))
    assert len(times) == 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Extended(Noted):
    """The same measure in a later version, which takes one number more."""

    columns = ("a", "b", "c", "d", "e")

    def take(self, context: Context) -> dict[str, float | None]:
        return {**super().take(context), "e": 2.0}


def test_measure_that_lacks_a_column_is_taken_again_and_no_training_is_made(
    searched: list[LevelResult],
) -> None:
    store, times = searched[0].trainer.store, list[int]()
    trainer, job = Trainer(store, frozen=True), searched[0].results["dense"].job
    trainer.measured(Noted(job=job, times=times))
    for _ in range(2):
        assert trainer.measured(Extended(job=job, times=times))["e"] == 2
    assert len(times) == 2
    # An older version reads what the later one stored.
    assert trainer.measured(Noted(job=job, times=times)).keys() == {"a", "b", "c", "d"}
    assert len(times) == 2
