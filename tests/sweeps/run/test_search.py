"""Optuna's search: what it warns of, and which samples are its own."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf, context_of

from lth_core import Trainer
from lth_core.errors import StoreError
from lth_core.resolve import Pins
from lth_core.store import Store
from lth_core.store.files import MemoryFiles
from sweeps.plan.plan import Trial, make_plan
from sweeps.run.search import Samples, distributions, finished_samples, open_study
from sweeps.run.trial import run_trial
from sweeps.run.worker import config_trials
from sweeps.store.records import STUDIES, load_records, save_records, searched_trials
from sweeps.store.samples import completed_samples, journal
from sweeps.studies.pins import pins_to_json

ONE = {"axes.seed": [0], "base.levels": 1, "base.branches": ["ticket"]}
WARNED: dict[str, Any] = {
    "model.widths": [[4], [8]],  # lists, which Optuna would rather not store
    "train.lr": {"low": 0.1, "high": 0.55, "step": 0.1},  # a range that its step does not divide
}


class Failing(MemoryFiles):
    """Files that cannot be read while ``fails`` is set."""

    fails = False

    def read(self, path: str) -> bytes | None:
        if self.fails:
            raise StoreError("it does not answer")
        return super().read(path)


@pytest.mark.slow
def test_optunas_warnings_are_not_printed_and_others_are(tiny_file: StudyFile, lth: Lth) -> None:
    import optuna

    search = {"algorithm": "optuna", "trials": 1, "space": WARNED}
    path = tiny_file({**ONE, "search": search})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        called = lth("sweep", path, "--serial")
        warnings.warn("an experiment", optuna.exceptions.ExperimentalWarning, stacklevel=1)
        warnings.warn("the user's own", UserWarning, stacklevel=1)
    assert called.code == 0, called
    assert "best: final_validation_accuracy" in called.out
    assert [str(warning.message) for warning in caught] == ["the user's own"]


def test_sample_without_what_the_objective_needs_is_a_failure(tiny: StudyOf) -> None:
    space = {"data.validation": [0]}
    search = {"algorithm": "optuna", "objective": "early_stop_step", "space": space}
    samples = Samples(tiny({"axes.seed": [0], "search": search}), Store(), 2)
    assert list(samples.items(2)) == []
    assert [sample for sample, _ in samples.failures] == ["data.validation=0"] * 2
    assert {why[:48] for _, why in samples.failures} == {
        "search.objective: needs validation examples (dat"
    }


def test_sample_is_told_once_its_records_can_be_read_and_the_next_follows(tiny: StudyOf) -> None:
    """Two samples run at once; each has a trial for each seed."""
    space = {"train.lr": {"low": 0.001, "high": 0.1}}
    study = tiny({"base.levels": 1, "search": {"algorithm": "optuna", "space": space}})
    files = Failing()
    trainer = Trainer(Store(files))
    samples = Samples(study, trainer.store, 3)
    first, second = samples.items(2)
    assert first.config["names"] != second.config["names"]
    assert len(first.config["names"]) == 2
    for trial, _ in config_trials(first.config):
        for _ in run_trial(trial, context_of(study), trainer):
            pass
    files.fails = True
    with pytest.raises(StoreError):
        samples.following(first)
    files.fails = False
    (third,) = samples.following(first)
    assert samples.following(second) == [], "three were asked for"
    found = {trial.number: trial for trial in open_study(study).get_trials()}
    rows = load_records(trainer.store, study.name, [t for t, _ in config_trials(first.config)])
    last = [r["final_validation_accuracy"] for r in rows if r["branch"] == "ticket"]
    assert found[0].value == pytest.approx(sum(last) / 2)
    assert found[1].state.name == "FAIL", "it has no records"
    assert found[third.config["sample"]].state.name == "FAIL", "it was running when it was opened"
    assert found[3].state.name == "WAITING"


def test_search_with_other_code_of_the_user_s_begins_anew(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of an edited network are no samples of the new one."""
    study = tiny({"search": {"algorithm": "optuna", "space": {"train.lr": [0.1, 0.2]}}})
    plain, files = journal(study), list[Path]()
    for source in ("as it was", "edited"):
        pins = Pins(sources={"own:net": source})
        monkeypatch.setattr("sweeps.store.samples.study_pins", lambda study, pins=pins: pins)
        files.append(journal(study))
    assert len({plain, *files}) == 3
    store, trial = Store(), make_plan(study).trials[0]
    store.put(STUDIES, f"{study.name}.{study.digest()}", {"pins": pins_to_json(pins)})
    for source in ("as it was", "edited"):
        model = replace(trial.spec.model, name="own:net", fingerprint=source)
        each = Trial(trial.fields, replace(trial.spec, model=model))
        save_records(store, study.name, study.digest(), each, [])
    assert [found.spec.model.fingerprint for found in searched_trials(store, study)] == ["edited"]


def test_samples_that_a_stopped_search_left_come_next_in_the_resumed_one(tiny: StudyOf) -> None:
    space = {"train.lr": {"low": 1e-4, "high": 0.1, "log": True}}
    study = tiny({"search": {"algorithm": "optuna", "trials": 5, "space": space}})
    drawn = distributions(study)
    search = open_study(study)
    left = [search.ask(fixed_distributions=drawn).params for _ in range(2)]
    resumed = open_study(study)
    again = [resumed.ask(fixed_distributions=drawn).params for _ in range(3)]
    assert again[:2] == left
    assert again[2] not in left
    assert finished_samples(resumed) == 0


def test_samples_of_a_range_with_a_step_are_the_grid_s_values(tiny: StudyOf) -> None:
    """Their digests agree: 0.3, not 0.30000000000000004. An older version's stay as they are: so
    are their trials."""
    import optuna

    axis = {"low": 0.1, "high": 0.5, "step": 0.1}
    study = tiny({"search": {"algorithm": "optuna", "space": {"train.lr": axis}}})
    for value in (0.30000000000000004, 0.2):
        params = {"train.lr": value}
        open_study(study).add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions(study), value=1)
        )
        open_study(study).enqueue_trial(params)
    assert completed_samples(study) == [{"train.lr": 0.30000000000000004}, {"train.lr": 0.2}]
    samples = Samples(study, Store(), 1)
    first, *_ = samples.items()
    assert [trial.fields["train.lr"] for trial, _ in config_trials(first.config)] == [0.3] * 2
    samples._search.tell(first.config["sample"], 1.0)
    assert {"train.lr": 0.3} in (completed_samples(study) or [])
