"""Records and masks of another hand or version count as missing, and are told."""

import threading
from typing import Any

import pytest
from safetensors.torch import save
from tiny import tiny_fields
from torch import zeros

from lth_core import Trainer, find_tickets
from lth_core.store import Store
from lth_core.store.files import MemoryFiles
from sweeps.plan.plan import Trial, make_plan
from sweeps.store.records import (
    load_curves,
    load_mask,
    load_records,
    record_key,
    save_records,
    searched_trials,
)
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Study

Saved = tuple[Store, Study, Trial, dict[str, Any], str]


@pytest.fixture
def saved() -> Saved:
    """A store with one trial's records and trainings; what is kept of the trial, and a training."""
    study, store = parse_study(tiny_fields({"axes.seed": [0], "base.levels": 0})), Store()
    (trial,) = make_plan(study).trials
    (level,) = find_tickets(trial.spec, Trainer(store, "cpu"))
    rows = [{"study": study.name, "trial": trial.id, **row} for row in level.records]
    save_records(store, study.name, study.digest(), trial, rows)
    entry = store.get("trials", record_key(study.name, trial))
    assert entry is not None
    return store, study, trial, entry.meta, level.results["dense"].job.digest


@pytest.mark.parametrize(
    "change",
    [
        {"records": None}, {"records": [1]}, {"records": [{"level": 0}]}, {"spec": []},
        {"study_digest": 3}, {"fields": "x"},
    ],
)  # fmt: skip
def test_trial_of_another_hand_has_no_records(
    saved: Saved, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    store, study, trial, meta, _ = saved
    assert load_records(store, study.name, [trial]) == meta["records"]
    assert [found.digest for found in searched_trials(store, study)] == [trial.digest]
    store.put("trials", record_key(study.name, trial), {**meta, **change})
    assert load_records(store, study.name, [trial]) == []
    assert searched_trials(store, study) == []
    assert f"trials/{record_key(study.name, trial)}: cannot be read" in caplog.text


def test_records_of_several_trials_are_read_side_by_side_and_come_in_order(saved: Saved) -> None:
    _, _, _, meta, _ = saved
    study = parse_study(tiny_fields({"axes.seed": [0, 1, 2, 3]}))
    trials = make_plan(study).trials
    all_here = threading.Barrier(len(trials), timeout=60)

    class Slow(MemoryFiles):
        """Files of which none is read until all are asked for."""

        def read(self, path: str) -> bytes | None:
            all_here.wait()
            return super().read(path)

    store = Store(Slow())
    for trial in trials[1:]:
        rows = [{**meta["records"][0], "trial": trial.id, "level": level} for level in (0, 1)]
        save_records(store, study.name, study.digest(), trial, rows)
    found = [(row["trial"], row["level"]) for row in load_records(store, study.name, trials)]
    assert found == [(trial.id, level) for trial in trials[1:] for level in (0, 1)]


def test_records_have_the_axis_values_of_the_study_as_it_is_now(saved: Saved) -> None:
    """An axis that was added later, and a value that is spelled otherwise now, train nothing anew."""
    store, study, trial, meta, _ = saved
    axes = {"axes.seed": [0], "axes.rewind": ["0%", "10%"], "axes.prune.scope": ["layerwise"]}
    now = make_plan(parse_study(tiny_fields({"base.levels": 0, **axes}))).trials
    assert now[0].digest == trial.digest
    (row,) = load_records(store, study.name, now)
    assert row == {**meta["records"][0], "rewind": "0%", "prune.scope": "layerwise", "seed": 0}


def test_trial_whose_spec_is_another_versions_was_not_searched(
    saved: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    store, study, trial, meta, _ = saved
    spec = {**meta["spec"], "levels": -1}
    store.put("trials", record_key(study.name, trial), {**meta, "spec": spec})
    assert searched_trials(store, study) == []
    assert "levels: must be at least 0" in caplog.text


def test_training_without_curves_or_a_mask_that_fits_has_none(
    saved: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    store, *_, digest = saved
    entry = store.get("trainings", digest)
    assert entry is not None
    assert load_mask(store, digest) is not None
    for blob in (
        b"no tensors",
        save({"mask/none": zeros(3)}),
        save({"mask/output.weight": zeros(3)}),
    ):
        caplog.clear()
        store.put("trainings", digest, entry.meta, {"mask.safetensors": blob})
        assert load_mask(store, digest) is None
        assert f"trainings/{digest}: cannot be read" in caplog.text
    assert load_curves(store, digest) is not None
    store.put("trainings", digest, {})
    assert load_curves(store, digest) is None
    assert f"trainings/{digest}: is not a training (TypeError: " in caplog.text
