"""Schedules: density over rounds or over training, from dense to a level's density.

All end at the level's density; counts are then rounded. All but `constant` begin with every
weight. For a final density of 0, `exponential` is 0 from the first change on.
"""

from __future__ import annotations

from collections.abc import Callable


def exponential(progress: float, density: float) -> float:
    """Density that falls by the same factor each round (Tanaka et al. 2020).

    >>> exponential(0, 0.25), exponential(0.5, 0.25), exponential(1, 0.25)
    (1.0, 0.5, 0.25)
    """
    return float(density**progress)


def cubic(progress: float, density: float) -> float:
    """Density that falls fast at first and slowly at the end (Zhu & Gupta 2017).

    >>> cubic(0, 0.2), round(cubic(0.5, 0.2), 3), cubic(1, 0.2)
    (1.0, 0.3, 0.2)
    """
    return density + (1 - density) * (1 - progress) ** 3


def linear(progress: float, density: float) -> float:
    """Density that falls by the same amount at each change (Zhu & Gupta 2017, exponent 1).

    >>> linear(0, 0.2), linear(0.5, 0.2), round(linear(1, 0.2), 3)
    (1.0, 0.6, 0.2)
    """
    return 1 - (1 - density) * progress


def constant(progress: float, density: float) -> float:
    """The final density from the first change on (Mocanu et al. 2018; Evci et al. 2020).

    >>> constant(0, 0.2), constant(1, 0.2)
    (0.2, 0.2)
    """
    return density


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "exponential": exponential,
    "cubic": cubic,
    "linear": linear,
    "constant": constant,
}
"""Functions from (progress in [0, 1], density at the end) to the current density."""
