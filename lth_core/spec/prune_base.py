"""Choices of pruning that every ``when`` has: score, scope, structure, amount."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from lth_core.errors import SpecError
from lth_core.spec.digest import added_later
from lth_core.spec.fields import STRICT, Checks

Statistics = Literal["batch", "running"]

SCOPES = ("global", "layerwise", "erk", "like:SCORE")
STRUCTURES = ("weights", "channels", "neurons", "N:M")
CHANNELS = ("channels", "neurons")
"""Structures whose units are removed from the network with all that reads them."""
PATTERN = re.compile(r"([1-9]\d*):([1-9]\d*)")
"""Structure N:M."""
FRACTION, TEMPERATURE = 0.2, 200.0
"""Defaults. Another value is an error in a spec that does not use the field."""
LEARNED = ("edge-popup", "supermask")
"""Scores that are learned, in place of weights."""
GATES = "gates"
"""The score of channels by their gates, which are trained where nothing else is."""
OF_CHANNELS = ("slimming", "taylor", GATES)
"""Scores of channels, not of weights."""
LATENCIES = {"latency_ms": "cpu", "cuda_latency_ms": "cuda"}
"""Costs in milliseconds, which are measured, and the device of each."""
BUDGETS = ("flops", "parameters", *LATENCIES)
"""Costs that a budget can limit."""


def pattern_of(structure: str) -> tuple[int, int] | None:
    """(N, M) of structure N:M, else None."""
    match = PATTERN.fullmatch(structure)
    return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneBase(Checks):
    """Choice of the weights that a level removes, for every ``when``."""

    __pydantic_config__ = STRICT

    score: str = "magnitude"
    """A score of `lth list scores`, or your own `package.module:function`; the weights of lowest
    score are removed."""
    scope: str = "layerwise"
    """Weights whose scores are compared, which decides layers' densities; see `lth list scopes`."""
    structure: str = "weights"
    """Unit that is removed as a whole: single `weights`, `channels` of convolutions or `neurons` of
    linear layers with all that reads them, or `N:M`, such as 2:4: N of every M weights in a row are
    kept."""
    fraction: float = field(default=FRACTION, metadata={"replaced_by": "budget"})
    """Share of the surviving weights that one level removes, in [0, 1)."""
    budget: dict[str, float] = field(
        default_factory=dict, hash=False, metadata=added_later(implied={})
    )
    """channels, neurons: the cost that one level leaves, in place of fraction: a share of the dense
    network's `flops` or `parameters`, above 0 and at most 1, which levels multiply; or milliseconds
    of a forward pass of 64 examples, measured where the mask is found: on one thread of the CPU
    (`latency_ms`) or on the GPU (`cuda_latency_ms`). No layer loses its last unit."""
    densities: tuple[float, ...] = ()
    """Density of each level, falling, in (0, 1); in place of fraction, for unequal steps."""
    output_fraction: float | None = None
    """Fraction of the output layer, in [0, 1); None: as the other layers. It loses no channels or
    neurons, which are classes."""
    layer_fractions: dict[str, float] = field(default_factory=dict, hash=False)
    """Fractions by layer name or pattern (`conv*: 0.1`); scores of such a layer are compared within
    it. A name precedes a pattern; of several patterns, the last in the alphabet counts."""
    ignore: tuple[str, ...] = ()
    """Layers (names or patterns; `output` is the last) that stay dense and are not counted; they
    lose inputs where channels before them are removed."""
    include: tuple[str, ...] = field(default=(), metadata=added_later(implied=()))
    """Embeddings (names or patterns) that are pruned and counted too; by default none is."""
    examples: int = 10
    """Number of training examples of each class for a score with gradients."""
    statistics: Statistics = "batch"
    """Batch norm's statistics for a score with gradients: those of its examples, as in training, or
    the running ones, which before training have no effect."""
    temperature: float = TEMPERATURE
    """grasp: divisor of the logits, above 0, so that all classes are about equally likely."""
    fingerprint: str = ""
    """Digest of the source of a score of your own; set by `resolve`."""

    def __post_init__(self) -> None:
        self._normalize()
        self._one_of("statistics", Statistics)
        if self.scope not in SCOPES[:-1] and not re.fullmatch("like:.+", self.scope):
            raise SpecError("scope", "is not known", self.scope, SCOPES)
        self._fractions()
        self._densities()
        self._number("examples", 1)
        self._positive("temperature", self.temperature)
        if "grasp" not in (self.score, self.scope[5:]) and self.temperature != TEMPERATURE:
            raise SpecError("temperature", "needs score: grasp", self.temperature)
        self._structure()
        self._channel_scores()
        self._budget()

    def _positive(self, name: str, value: float | None) -> None:
        if value is not None and not value > 0:
            raise SpecError(name, "must be a positive number", value)

    def _fractions(self) -> None:
        self._share("fraction", self.fraction)
        if self.output_fraction is not None:
            self._share("output_fraction", self.output_fraction)
        for layer, fraction in self.layer_fractions.items():
            self._share(f"layer_fractions.{layer}", fraction)
        # The last match counts. The digest ignores the order, so the order must be fixed.
        in_order = sorted(self.layer_fractions, key=lambda name: (not set(name) & set("*?["), name))
        self._set("layer_fractions", {name: float(self.layer_fractions[name]) for name in in_order})

    def _densities(self) -> None:
        falling = all(isinstance(d, (int, float)) for d in self.densities)
        for before, density in zip((1.0, *self.densities), self.densities, strict=False):
            falling = falling and 0 < density < before
        if not falling:
            raise SpecError("densities", "must fall, all in (0, 1)", self.densities)
        self._set("densities", tuple(float(density) for density in self.densities))
        if self.densities and self.fraction != FRACTION:
            raise SpecError("fraction", "is not used beside densities", self.fraction)

    def _structure(self) -> None:
        if self.structure not in STRUCTURES[:-1] and not self.pattern:
            raise SpecError("structure", "is not known", self.structure, STRUCTURES)
        if not self.pattern:
            return
        n, m = self.pattern
        if n > m:
            raise SpecError("structure", "must keep at most M of M weights", self.structure)
        if abs(1 - self.fraction - n / m) > 1e-9:
            rule = f"must be {1 - n / m:g}, the share that structure: {self.structure} removes"
            raise SpecError("fraction", rule, self.fraction)
        unequal = self.layer_fractions or self.densities or self.output_fraction is not None
        if unequal or self.scope != "layerwise":
            rule = "must have scope: layerwise and the same fraction in every layer and level"
            raise SpecError("structure", rule, self.structure)

    def _channel_scores(self) -> None:
        for score in {self.score, self.scope.removeprefix("like:")} & set(OF_CHANNELS):
            if self.structure not in CHANNELS:
                rule = f"must be channels or neurons, of which {score} is a score"
                raise SpecError("structure", rule, self.structure)

    def _budget(self) -> None:
        if not self.budget:
            return
        if len(self.budget) > 1:
            raise SpecError("budget", "must limit one cost", self.budget, BUDGETS)
        for cost, limit in self.budget.items():
            if cost not in BUDGETS:
                raise SpecError(f"budget.{cost}", "is not a cost", limit, BUDGETS)
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if not number or not 0 < limit < float("inf") or (limit > 1 and cost not in LATENCIES):
                rule = "must be a number above 0" + (
                    "" if cost in LATENCIES else " and at most 1, a share of the dense network's"
                )
                raise SpecError(f"budget.{cost}", rule, limit)
            self._set("budget", {cost: float(limit)})
        if self.structure not in CHANNELS:
            rule = "must be channels or neurons, which prune.budget removes"
            raise SpecError("structure", rule, self.structure)
        if self.scope not in ("global", "layerwise"):
            rule = "must be global or layerwise beside prune.budget"
            raise SpecError("scope", rule, self.scope)
        for name, default in (
            ("fraction", FRACTION),
            ("densities", ()),
            ("output_fraction", None),
            ("layer_fractions", {}),
        ):
            if getattr(self, name) != default:
                raise SpecError(name, "is not used beside prune.budget", getattr(self, name))

    def _not_learned(self) -> None:
        if self.score in LEARNED:
            rule = "is learned, so it needs prune.when: never"
            raise SpecError("score", rule, self.score, LEARNED)
        for name, score in (("score", self.score), ("scope", self.scope.removeprefix("like:"))):
            if score == GATES:
                raise SpecError(name, "needs prune.when: gates", getattr(self, name))

    def _no_like(self) -> None:
        if self.scope.startswith("like:"):
            raise SpecError("scope", "needs prune.when: before or after", self.scope)

    @property
    def pattern(self) -> tuple[int, int] | None:
        """(N, M) of structure N:M, else None."""
        return pattern_of(self.structure)

    def shared(self) -> dict[str, Any]:
        """Values of the fields that every ``when`` has, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(PruneBase)}
