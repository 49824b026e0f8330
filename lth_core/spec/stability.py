"""Spec of the measure of stability."""

from __future__ import annotations

from dataclasses import dataclass

from lth_core.spec.fields import STRICT, Checks


@dataclass(frozen=True, kw_only=True, slots=True)
class StabilitySpec(Checks):
    """Measure of the errors of networks between two copies of a run, for branch `twin`."""

    __pydantic_config__ = STRICT

    points: int = 30
    """Number of networks on the straight line between the two ends, both included; at least 3."""
    renormalize: bool = True
    """Estimate batch norm's statistics anew at each point, from the training examples; false:
    they are interpolated as the weights are."""

    def __post_init__(self) -> None:
        self._normalize()
        self._number("points", 3)
