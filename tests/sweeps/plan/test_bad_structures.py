"""Structures that cannot be: one clear error at plan, before anything is trained."""

import re
from copy import deepcopy
from typing import Any

import pytest
from tiny import Lth, StudyFile

pytestmark = pytest.mark.slow

RESNET = {"name": "resnet-8", "width": 0.25}
BASE: dict[str, Any] = {
    "base.model": RESNET, "base.levels": 1, "base.branches": ["ticket"],
    "base.prune": {"structure": "channels", "scope": "global", "budget": {"flops": 0.5}},
    "axes.seed": [0],
}  # fmt: skip
CHANNELS = {"structure": "channels", "scope": "global"}
GATES = {"base.prune.when": "gates"}
BRANCHES = "base.branches"

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "budget 0": ({"base.prune.budget": {"flops": 0}},
                 r"prune\.budget\.flops: must be a number above 0 and at most 1, .* got 0"),
    "budget above 1": ({"base.prune.budget": {"parameters": 1.5}},
                       r"prune\.budget\.parameters: must be .* at most 1, .* but got 1\.5"),
    "negative": ({"base.prune.budget": {"flops": -0.5}}, r"prune\.budget\.flops: must be .* above 0"),
    "not a number": ({"base.prune.budget": {"flops": float("nan")}}, r"prune\.budget\.flops"),
    "a word": ({"base.prune.budget": {"flops": "half"}}, r"prune\.budget\.flops"),
    "below one channel a layer": (
        {"base.prune.budget": {"flops": 0.01}},
        r"prune\.budget\.flops: must be at least 0\.\d+, the cost with one channel in each pruned"),
    "below one gated channel a layer": (
        {**GATES, "base.prune.budget": {"parameters": 0.1}},
        r"prune\.budget\.parameters: must be at least 0\.\d+, the cost with one channel"),
    "below one channel a layer at the last level": (
        {"base.prune.budget": {"flops": 0.2}, "base.levels": 3},
        r"prune\.budget\.flops: must be at least 0\.\d+, .* after 3 levels, but got 0\.2"),
    "below one channel of a widened network": (
        {**GATES, "base.prune.budget": {"flops": 0.3}, "base.prune.expand": 4.0},
        r"prune\.budget\.flops: must be at least \d+\.?\d*, the cost with one channel"),
    "two costs": ({"base.prune.budget": {"flops": 0.5, "parameters": 0.5}},
                  r"prune\.budget: must limit one cost"),
    "unknown cost": ({"base.prune.budget": {"flop": 0.5}},
                     r"prune\.budget\.flop: is not a cost.*flops, parameters, latency_ms"),
    "weights with a budget": ({"base.prune.structure": "weights"},
                              r"prune\.structure: must be channels or neurons, which prune\.budget"),
    "fraction beside a budget": ({"base.prune.fraction": 0.5},
                                 r"prune\.fraction: is not used beside prune\.budget"),
    "erk beside a budget": ({"base.prune.scope": "erk"}, r"prune\.scope: must be global or layerwise"),
    "during beside a budget": ({"base.prune.when": "during"}, r"prune\.budget: needs prune\.when"),
    "levels of milliseconds": ({"base.prune.budget": {"latency_ms": 5}, "base.levels": 2},
                               r"levels: must be at most 1 beside a budget of milliseconds"),
    "no places for gates": ({**GATES, "base.model": {"name": "conv-2", "width": 0.1}},
                            r"prune\.when: needs convolutions with batch norm"),
    "no channels": ({"base.model": {"name": "mlp", "widths": [16]}}, r"prune\.structure: must be"),
    "no validation": ({**GATES, "base.data.validation": 0},
                      r"prune\.gate_validation: must be given where data\.validation is 0"),
    "too much validation": (
        {**GATES, "base.data.validation": 0, "base.prune.gate_validation": 5000},
        r"data\.validation: must leave|prune\.gate_validation: must leave"),
    "scratch_b without a budget": (
        {"base.prune.budget": {}, BRANCHES: ["ticket", "scratch_b"]},
        r"branches: trains for the dense run's FLOPs, so it needs prune\.budget: \{flops"),
    "scratch_b with another budget": (
        {"base.prune.budget": {"parameters": 0.5}, BRANCHES: ["ticket", "scratch_b"]},
        r"branches: trains for the dense run's FLOPs"),
    "scratch without channels": (
        {"base.prune": {"fraction": 0.5}, BRANCHES: ["ticket", "scratch_e"]},
        r"branches: trains the channels that are left, so it needs prune\.structure"),
    "expand with rewind": ({**GATES, "base.prune.expand": 1.25, "base.rewind": "5it"},
                           r"rewind: must be 0 where prune\.expand widens the network"),
    "expand of a network without width": (
        {**GATES, "base.prune.expand": 1.25, "base.model": {"name": "resnet-18"}},
        r"prune\.expand: must be 1, because resnet-18 is not wider"),
    "expand of a network too narrow to grow by so little": (
        {**GATES, "base.prune.expand": 1.01}, r"prune\.expand: must be 1, because resnet-8"),
    "expand below 1": ({**GATES, "base.prune.expand": 0.5}, r"prune\.expand: must be .* at least 1"),
    "expand without gates": ({"base.prune.expand": 1.25}, r"prune\.expand: needs prune\.when: gates"),
    "slimming without batch norm": (
        {"base.model": {"name": "conv-2", "width": 0.1}, "base.prune.score": "slimming"},
        r"prune\.score: needs batch norm behind every pruned layer, which conv1"),
    "own fraction of one of two coupled layers": (
        {"base.prune": CHANNELS | {"layer_fractions": {"stages.1_1.conv2": 0.5}}},
        r"prune\.layer_fractions: must be equal for layers that lose channels together: stem, stages"),
    "own fraction of a layer without channels to lose": (
        {"base.prune": CHANNELS | {"layer_fractions": {"output": 0.5}}},
        r"prune\.layer_fractions: must match a layer that can lose channels, but got 'output'"),
    "penalty without batch norm": (
        {"base.model": {"name": "conv-2", "width": 0.1}, "base.train.norm_penalty": 1e-4},
        r"train\.norm_penalty: needs batch norm with scales, which conv-2 lacks"),
    "negative penalty": ({"base.train.norm_penalty": -1e-4}, r"train\.norm_penalty: must be at least 0"),
    "gates as a score": ({"base.prune.score": "gates"}, r"prune\.score: needs prune\.when: gates"),
    "another score of gates": ({**GATES, "base.prune.score": "snip"}, r"prune\.score: must be gates"),
    "neurons with gates": ({**GATES, "base.prune.structure": "neurons"},
                           r"prune\.structure: must be channels where prune\.when is gates"),
    "weights with gates": ({"base.prune": {"when": "gates"}}, r"prune\.structure: must be channels"),
    "share to keep of 0": ({**GATES, "base.prune.keep_share": 0}, r"prune\.keep_share: must be"),
    "gates by hand": ({"base.model.gates": True},
                      r"model\.gates: must be false: prune\.when: gates sets it"),
    "retrained gates": ({**GATES, BRANCHES: ["ticket", "finetune"]},
                        r"branches: continues from trained weights, so it needs prune\.when: after"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_structure_that_cannot_be_is_refused_at_plan(
    name: str, tiny_file: StudyFile, lth: Lth
) -> None:
    changes, message = CASES[name]
    called = lth("plan", tiny_file(deepcopy({**BASE, **changes})))
    assert called.code == 2, called
    assert re.search(message, called.err), called.err
    assert len(called.err.strip().splitlines()) == 1
    assert called.err.startswith("lth: ")


@pytest.mark.parametrize("more", [{}, GATES, {"base.levels": 2}])
def test_smallest_budget_that_the_error_says_is_accepted(
    more: dict[str, Any], tiny_file: StudyFile, lth: Lth
) -> None:
    small = {**BASE, **more, "base.prune.budget": {"flops": 1e-4}}
    called = lth("plan", tiny_file(deepcopy(small)))
    least = re.search(r"at least (\S+),", called.err)
    assert least, called
    small["base.prune.budget"] = {"flops": float(least[1])}
    assert lth("plan", tiny_file(deepcopy(small))).code == 0


def test_axis_of_gates_by_hand_is_no_field(tiny_file: StudyFile, lth: Lth) -> None:
    called = lth("plan", tiny_file(deepcopy({**BASE, "axes.model.gates": [False, True]})))
    assert called.code == 2
    assert "model.gates" in called.err
    assert "model.gates" not in lth("list", "fields").out
