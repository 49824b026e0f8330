"""The grid of evaluations of a search, where the spec leaves it open."""

from __future__ import annotations

from lth_core import data
from lth_core.errors import SpecError
from lth_core.spec import TicketSpec
from lth_core.train.batches import examples_seen
from lth_core.train.timings import TRAINING_PASSES

MOST_EVALUATIONS = 40
"""Largest number of evaluations of the dense run where `train.evaluate_every` is auto."""
LEAST_TRAINING = 10
"""Least cost of a training as a multiple of that of its evaluations, unless there is only one."""


def evaluation_interval(steps: int, batch_size: int, examples: int, evaluated: int) -> int:
    """Steps between evaluations where `train.evaluate_every` is auto.

    There are `MOST_EVALUATIONS`, or as many as `LEAST_TRAINING` allows, at least one. All trainings
    of a search have the interval of the dense run's whole schedule, also those that start later.

    Args:
        steps: length of the dense run, above 0.
        examples, evaluated: numbers of training examples, and of validation and test examples.

    >>> evaluation_interval(9170, 60, 55_000, 15_000)  # ten epochs of MNIST
    834
    """
    training = TRAINING_PASSES * examples_seen(steps, batch_size, examples)
    affordable = training // (LEAST_TRAINING * max(1, evaluated))
    return -(-steps // max(1, min(MOST_EVALUATIONS, affordable)))


def check_evaluation(spec: TicketSpec) -> None:
    """Check that there are validation examples by which the best evaluation can be known."""
    if spec.train.evaluate_test == "best" and not data.has_validation(spec.data):
        rule = "must be grid where there are no validation examples (data.validation is 0)"
        raise SpecError("train.evaluate_test", rule, spec.train.evaluate_test)
