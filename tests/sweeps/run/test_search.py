"""Optuna's search: what it warns of its own classes is not shown to a user."""

import warnings
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf

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
    assert "best: final_test_accuracy" in called.out
    assert [str(warning.message) for warning in caught] == ["the user's own"]


@pytest.mark.ray
def test_rays_searcher_prints_none_of_optunas_warnings(tiny: StudyOf) -> None:
    from sweeps.run.tune import optuna_search

    study = tiny({"search": {"algorithm": "optuna", "trials": 2, "space": WARNED}})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert optuna_search(study).suggest("a")
    assert [str(warning.message) for warning in caught] == []
