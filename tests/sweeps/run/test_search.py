"""Optuna's search: what it warns of, and which samples are its own."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf

from lth_core.resolve import Pins
from lth_core.store import Store
from sweeps.plan.plan import Trial, make_plan
from sweeps.run.search import distributions, finished_samples, open_study
from sweeps.store.records import STUDIES, save_records, searched_trials
from sweeps.store.samples import journal
from sweeps.studies.pins import pins_to_json

ONE = {"axes.seed": [0], "base.levels": 1, "base.branches": ["ticket"]}
WARNED: dict[str, Any] = {
    "model.widths": [[4], [8]],  # lists, which Optuna would rather not store
    "train.lr": {"low": 0.1, "high": 0.55, "step": 0.1},  # a range that its step does not divide
}


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


@pytest.mark.ray
def test_rays_searcher_prints_none_of_optunas_warnings(tiny: StudyOf) -> None:
    from sweeps.run.tune import optuna_search

    study = tiny({"search": {"algorithm": "optuna", "trials": 2, "space": WARNED}})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert optuna_search(study).suggest("a")
    assert [str(warning.message) for warning in caught] == []


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
