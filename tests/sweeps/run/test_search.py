"""Optuna's search: what it warns of its own classes is not shown to a user."""

import warnings
from typing import Any

import pytest
from tiny import StudyOf

from sweeps.run.search import best_lines, distributions, open_study, sampler

WARNED: dict[str, Any] = {
    "model.widths": [[4], [8]],  # lists, which Optuna would rather not store
    "train.lr": {"low": 0.1, "high": 0.55, "step": 0.1},  # a range that its step does not divide
}


def test_optunas_warnings_are_not_printed_and_others_are(tiny: StudyOf) -> None:
    import optuna

    search = {"algorithm": "optuna", "trials": 2, "space": WARNED}
    study = tiny({"search": search})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optuna_study, space = open_study(study), distributions(study)
        optuna_study.sampler = sampler(study, optuna_study)
        trial = optuna_study.ask(fixed_distributions=space)
        optuna_study.tell(trial, [0.5] * len(study.search.objective))
        assert best_lines(open_study(study), study)
        warnings.warn("an experiment", optuna.exceptions.ExperimentalWarning, stacklevel=1)
        assert [str(warning.message) for warning in caught] == []
        warnings.warn("the user's own", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["the user's own"]


@pytest.mark.ray
def test_rays_searcher_prints_none_of_optunas_warnings(tiny: StudyOf) -> None:
    from sweeps.run.tune import optuna_search

    study = tiny({"search": {"algorithm": "optuna", "trials": 2, "space": WARNED}})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert optuna_search(study).suggest("a")
    assert [warning for warning in caught if "optuna" in warning.filename] == []
