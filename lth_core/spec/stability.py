"""How the instability of training is measured."""

from __future__ import annotations

from dataclasses import dataclass

from lth_core.spec.fields import STRICT, Checks


@dataclass(frozen=True, kw_only=True, slots=True)
class StabilitySpec(Checks):
    """How the error between two copies of a run is measured; goes with branch `twin`."""

    __pydantic_config__ = STRICT

    points: int = 30
    """Networks on the straight line between the two ends, the ends included."""
    renormalize: bool = True
    """Estimate batch norm's statistics anew at each point, from the training examples; false:
    they are interpolated as the weights are."""

    def __post_init__(self) -> None:
        self._normalize()
        self._number("points", 3)
