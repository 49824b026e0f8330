"""The share of training time that evaluations take, of tiny studies whose examples are counted."""

import json
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf

from sweeps.plan.evaluation import evaluation_share
from sweeps.plan.plan import make_plan

# digits: 1,213 training examples in 21 steps an epoch, 135 validation and 449 test examples
TRAINED = 3 * 1213 / 21


@pytest.mark.parametrize(
    ("changes", "evaluated"),
    [
        ({}, 584 / 20),
        ({"base.train.evaluate_every": "5it"}, 584 / 5),
        ({"base.train.evaluate_every": "1it", "base.train.evaluate_test": "best"}, 135),
        ({"base.data.validation": 0}, 449 / 20 * 1213 / 1348 * 23 / 21),  # 23 steps an epoch
    ],
)
def test_share_is_that_of_forward_passes(
    changes: dict[str, Any], evaluated: float, tiny: StudyOf
) -> None:
    share = evaluation_share(make_plan(tiny(changes))).share
    assert share == pytest.approx(evaluated / (evaluated + TRAINED))


def test_share_is_a_mean_over_steps(tiny: StudyOf) -> None:
    both = {"axes.train.evaluate_every": ["2it", "40it"], "base.levels": 0}
    found = evaluation_share(make_plan(tiny(both)))
    evaluated = (584 / 2 + 584 / 40) / 2
    assert found.share == pytest.approx(evaluated / (evaluated + TRAINED))


def test_large_share_is_printed_with_the_field_that_lowers_it(
    lth: Lth, tiny_file: StudyFile
) -> None:
    often = tiny_file({"base.train.evaluate_every": "5it"})
    line = "evaluation: about 40% of training time; a longer train.evaluate_every takes less\n"
    assert line in lth("plan", often).out
    share = json.loads(lth("plan", often, "--json").out)["evaluation_share"]
    assert share == pytest.approx(0.40264, abs=1e-5)
    assert "evaluation" not in lth("plan", tiny_file()).out


def test_field_that_would_change_nothing_is_not_named(tiny: StudyOf) -> None:
    once = {"base.train.steps": "5it", "base.train.evaluate_every": "auto"}
    found = evaluation_share(make_plan(tiny(once)))
    assert found.sentence() == "evaluation: about 40% of training time"


def test_training_that_is_evaluated_at_its_end_alone_is_told(tiny: StudyOf) -> None:
    """As MNIST's of few steps are by default, whose evaluations cost much."""
    line = (
        "evaluation: after the last step alone; a shorter train.evaluate_every gives curves and an "
        "early stop"
    )
    once = {"base.train.steps": "40it", "base.train.evaluate_every": "40it"}
    assert evaluation_share(make_plan(tiny(once))).sentence() == line
    twice = {**once, "base.train.evaluate_every": "20it"}
    assert evaluation_share(make_plan(tiny(twice))).sentence() == ""


def test_gates_have_a_field_of_their_own(tiny: StudyOf) -> None:
    gates = {
        "base.model": {"name": "vgg-11", "width": 0.05}, "base.data.name": "mnist-5k",
        "base.prune": {"when": "gates", "structure": "channels", "scope": "global",
                       "budget": {"flops": 0.5}, "gate_steps": "1ep", "gate_every": "1it"},
        "base.levels": 1, "base.branches": ["ticket"], "base.train.evaluate_every": "auto",
        "base.train.batch_size": 64,
    }  # fmt: skip
    found = evaluation_share(make_plan(tiny(gates)))
    assert found.fields == ("prune.gate_every",)
