"""Learning rates: pure functions of the step."""

from __future__ import annotations

from math import cos, pi

from lth_core.spec import TrainSpec
from lth_core.spec.fields import steps_in


def learning_rate(spec: TrainSpec, step: int) -> float:
    """Learning rate of a step (0 is the first), for a spec with all durations in steps.

    Warm-up rises linearly and reaches the full rate at its end; cosine falls from there to 0 at
    the last step (Loshchilov & Hutter 2017, without restarts).
    """
    warmup, last = steps_in(spec.warmup), steps_in(spec.steps)
    if step < warmup:
        return spec.lr * (step + 1) / warmup
    if spec.schedule == "multistep":
        passed = sum(step >= steps_in(milestone) for milestone in spec.milestones)
        return spec.lr * spec.gamma**passed
    if spec.schedule == "cosine":
        return spec.lr * (1 + cos(pi * (step - warmup) / max(1, last - warmup))) / 2
    return spec.lr
