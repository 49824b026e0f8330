"""Instability analysis: whether two data orders lead training to one linearly connected region.

Two copies of a run are trained from one state under different data orders. The error is measured
on the straight line between their final weights (linear mode connectivity, Frankle et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lth_core.data import Dataset
from lth_core.jobs.recipes import Context, Job, Measure
from lth_core.masks import State
from lth_core.models.layers import load_state
from lth_core.spec import StabilitySpec
from lth_core.train.evaluate import estimate_statistics, evaluate
from lth_core.train.precision import arithmetic


@dataclass(frozen=True, kw_only=True, eq=False)
class Barrier(Measure):
    """Rise of the error on the line between the final weights of two runs, in [-1, 1].

    `test_barrier` is that of the test error, `train_barrier` that of the training error.
    """

    kind = "Barrier"
    columns = ("test_barrier", "train_barrier")

    one: Job
    other: Job
    stability: StabilitySpec

    def take(self, context: Context) -> dict[str, float | None]:
        data = context.data(self.one)
        ends = context.final(self.one)[0], context.final(self.other)[0]
        model = context.network(self.one, ends[0])
        with arithmetic(self.one.train.precision, data.train.x.device):
            test, train = path_errors(model, data, *ends, self.stability)
        return {"test_barrier": barrier(test), "train_barrier": barrier(train)}


def barrier(errors: Sequence[float]) -> float:
    """The highest error on a path, less the mean of its two ends (Frankle et al. 2020).

    It is at least half the difference of the ends, so at least 0.

    >>> barrier([0.25, 0.5, 0.25])
    0.25
    """
    return max(errors) - (errors[0] + errors[-1]) / 2


def path_errors(
    model: nn.Module, data: Dataset, one: State, other: State, spec: StabilitySpec
) -> tuple[list[float], list[float]]:
    """(test errors, training errors), in [0, 1], at evenly spaced points from one state to another.

    Args:
        model: overwritten; on the data's device.
        one, other: weights and buffers, each in the model's shapes.
    """
    test, train = list[float](), list[float]()
    for i in range(spec.points):
        load_state(model, interpolate(one, other, i / (spec.points - 1)))
        if spec.renormalize:
            estimate_statistics(model, data)
        test.append(1 - evaluate(model, data, data.test)[1])
        train.append(1 - evaluate(model, data, data.train)[1])
    return test, train


def interpolate(one: State, other: State, share: float) -> State:
    """(1 - share) one + share other, in their shapes; integer buffers are those of the nearer."""
    return {
        name: torch.lerp(value, other[name], share)
        if value.is_floating_point()
        else (value if share < 0.5 else other[name])
        for name, value in one.items()
    }
