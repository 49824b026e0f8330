"""How a network is pruned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lth_core.checks import STRICT, Checks

Scope = Literal["global", "layerwise"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneSpec(Checks):
    """Which surviving weights one level removes."""

    __pydantic_config__ = STRICT

    score: str = "magnitude"
    """A score of `lth list scores`; the lowest go first."""
    scope: Scope = "layerwise"
    """Whether weights compete within their layer or across all layers."""
    fraction: float = 0.2
    """Share of the surviving weights that one level removes, in [0, 1)."""
    output_fraction: float | None = None
    """The output layer's own fraction; None: as the others."""
    layer_fractions: dict[str, float] = field(default_factory=dict)
    """Own fractions by layer name or pattern (`conv*: 0.1`); such a layer competes with itself.
    A name goes before a pattern, and among patterns the later in the alphabet."""
    ignore: tuple[str, ...] = ()
    """Layers (names or patterns; `output` is the last one) that stay dense and out of the count."""
    one_shot: bool = False
    """True: every level prunes the dense run at once, to the density of the iterative way."""

    def __post_init__(self) -> None:
        self._normalize()
        self._one_of("scope", Scope)
        self._share("fraction", self.fraction)
        if self.output_fraction is not None:
            self._share("output_fraction", self.output_fraction)
        for layer, fraction in self.layer_fractions.items():
            self._share(f"layer_fractions.{layer}", fraction)
        # The last match counts. Sorted, so that specs of one digest mean one thing.
        in_order = sorted(self.layer_fractions, key=lambda name: (not set(name) & set("*?["), name))
        self._set("layer_fractions", {name: float(self.layer_fractions[name]) for name in in_order})
