"""Specs of pruning: one for each value of ``when``, with a shared base.

`PruneSpec` makes the spec that ``when`` names; a study file has the same fields.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, overload

from lth_core.errors import SpecError
from lth_core.spec.digest import added_later
from lth_core.spec.fields import STRICT, Checks, steps_in

Grow = Literal["none", "random", "gradient"]
Statistics = Literal["batch", "running"]

SCOPES = ("global", "layerwise", "erk", "like:SCORE")
STRUCTURES = ("weights", "channels", "neurons", "N:M")
CHANNELS = ("channels", "neurons")
"""Structures whose units are removed from the network with all that reads them."""
PATTERN = re.compile(r"([1-9]\d*):([1-9]\d*)")
"""Structure N:M."""
FRACTION, SWAP, TEMPERATURE = 0.2, 0.3, 200.0
"""Defaults. Another value is an error in a spec that does not use the field."""
LEARNED = ("edge-popup", "supermask")
"""Scores that are learned, in place of weights."""
GATES = "gates"
"""The score of channels by their gates, which are trained where nothing else is."""
OF_CHANNELS = ("slimming", "taylor", GATES)
"""Scores of channels, not of weights."""
MOST_EXPANSION = 10.0
"""Largest factor by which a network is widened before gates are trained."""
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
    fraction: float = FRACTION
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
    """Fraction of the output layer, in [0, 1); None: as the other layers."""
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

    def _budget(self) -> None:
        for score in {self.score, self.scope.removeprefix("like:")} & set(OF_CHANNELS):
            if self.structure not in CHANNELS:
                rule = f"must be channels or neurons, of which {score} is a score"
                raise SpecError("structure", rule, self.structure)
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
        for name in ("fraction", "densities", "output_fraction", "layer_fractions"):
            if getattr(self, name) != PRUNE_DEFAULTS[name]:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneAfter(PruneBase):
    """Trained weights are scored, level after level."""

    when: Literal["after"] = "after"
    """after: trained weights are scored, level after level. before: the weights of the rewind point
    are scored, and each level finds its mask anew, at the level's density.
    during: the mask changes while the weights train. never: a mask is learned over weights that do
    not train. gates: scales of channels are learned over weights that do not train."""
    one_shot: bool = False
    """after: every level prunes the dense run at once, to the density of iterative pruning."""

    def __post_init__(self) -> None:
        self._one_of("when", Literal["after"])
        PruneBase.__post_init__(self)  # super() has no class in a dataclass with slots
        self._not_learned()


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneBefore(PruneBase):
    """The weights of the rewind point are scored; each level finds its mask anew, at the level's
    density."""

    when: Literal["before"] = "before"
    """The weights of the rewind point are scored, and each level finds its mask anew."""
    rounds: int | None = None
    """before: number of rounds of scoring and pruning that reach a level's density. None: 100 for
    synflow, else 1."""
    schedule: str | None = None
    """Course of the density over rounds or training; see `lth list schedules`. None: exponential
    over rounds, cubic during training, constant where weights grow back."""

    def __post_init__(self) -> None:
        self._one_of("when", Literal["before"])
        PruneBase.__post_init__(self)
        if self.rounds is not None:
            self._number("rounds", 1)
        self._not_learned()


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneDuring(PruneBase):
    """The mask changes while the weights train from the rewind point, anew at each level."""

    when: Literal["during"] = "during"
    """The mask changes while the weights train."""
    schedule: str | None = None
    """Course of the density over training; see `lth list schedules`. None: cubic, or constant where
    weights grow back."""
    begin: int | str = "0%"
    """during: time of the mask's first change, on the ticket's schedule."""
    end: int | str = "75%"
    """during: time of the mask's last change."""
    every: int | str = "1%"
    """during: interval between changes."""
    grow: Grow = "none"
    """during: choice of the pruned weights that grow back, from 0; see `lth list grow`."""
    swap: float = SWAP
    """during, with grow: share of each layer's weights that the first change swaps, in [0, 1); it
    falls to 0 at the end, as a cosine."""

    def __post_init__(self) -> None:
        self._one_of("when", Literal["during"])
        PruneBase.__post_init__(self)
        self._one_of("grow", Grow)
        self._share("swap", self.swap)
        for name in ("begin", "end"):
            self._duration(name)
        self._duration("every", positive=True)
        if self.grow == "none" and self.swap != SWAP:
            raise SpecError("swap", "needs grow: random or gradient", self.swap)
        self._not_learned()
        self._no_like()
        if self.budget:
            raise SpecError("budget", "needs prune.when: before, after or gates", self.budget)
        if self.structure != "weights" and self.grow != "none":
            raise SpecError("structure", "must be weights where weights grow back", self.structure)
        if self.pattern:
            raise SpecError("structure", "must not be N:M during training", self.structure)

    def in_steps(self, steps_per_epoch: int, steps: int, first: int = 0) -> PruneDuring:
        """The spec with durations in steps of the schedule.

        Args:
            first: the step at which the ticket's run starts: the rewind point, or 0 where the
                schedule restarts there. The mask does not change before it.
        """
        # One percent of a short training may round to 0 steps.
        least = {"begin": first, "end": 0, "every": 1}
        durations: dict[str, Any] = {
            name: f"{max(low, steps_in(getattr(self, name), steps_per_epoch, steps))}it"
            for name, low in least.items()
        }
        return dataclasses.replace(self, **durations)


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneNever(PruneBase):
    """A mask is learned over the weights of the rewind point, which never train."""

    when: Literal["never"] = "never"
    """Nothing is trained but a mask over the weights; score: edge-popup or supermask."""
    lr: float | None = None
    """never: learning rate of the mask. None: train.lr."""

    def __post_init__(self) -> None:
        self._one_of("when", Literal["never"])
        PruneBase.__post_init__(self)
        self._positive("lr", self.lr)
        self._no_like()
        if self.score not in LEARNED:
            rule = "must be learned where prune.when is never"
            raise SpecError("score", rule, self.score, LEARNED)
        if self.structure != "weights":
            raise SpecError("structure", "must be weights where masks are learned", self.structure)


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneGates(PruneBase):
    """Each channel gets a gate, a scale between batch norm and activation. Gates alone are trained,
    over the weights of the rewind point; channels with the smallest gates are removed (Wang et al.
    2020, Pruning from Scratch)."""

    when: Literal["gates"] = "gates"
    """Scales of channels, gates, are trained over the weights of the rewind point, nothing else."""
    keep_share: float = 0.2
    """gates: share of the channels that the penalty on gates asks to keep, in (0, 1)."""
    penalty: float = 0.5
    """gates: weight of the penalty (mean gate - keep_share)^2 beside the loss, at least 0."""
    gate_lr: float = 0.01
    """gates: learning rate of the gates' Adam, above 0."""
    gate_batch_size: int = 128
    """gates: number of examples in a step."""
    gate_steps: int | str = "10ep"
    """gates: length of the gates' training: steps (`500it`) or epochs (`10ep`)."""
    gate_every: int | str = "1ep"
    """gates: interval between evaluations. Of those whose share of gates above 0 is at most
    keep_share, the one of highest validation accuracy gives the gates; if none is, the last."""
    gate_validation: int | None = None
    """gates: training examples that are held out to choose among evaluations, at least 1. None:
    those of data.validation."""
    expand: float = 1.0
    """gates: factor of the width of the network that gets gates and loses channels, at least 1. A
    budget remains a share of the cost of the network that is not widened."""

    def __post_init__(self) -> None:
        self._one_of("when", Literal["gates"])
        if self.score == "magnitude":
            self._set("score", GATES)
        PruneBase.__post_init__(self)
        self._number("penalty", 0)
        self._positive("gate_lr", self.gate_lr)
        self._number("gate_batch_size", 1)
        self._duration("gate_steps", positive=True, share=False)
        self._duration("gate_every", positive=True)
        if self.gate_validation is not None:
            self._number("gate_validation", 1)
        if not isinstance(self.keep_share, float) or not 0 < self.keep_share < 1:
            raise SpecError("keep_share", "must be a number in (0, 1)", self.keep_share)
        if not isinstance(self.expand, float) or not 1 <= self.expand <= MOST_EXPANSION:
            rule = f"must be a number of at least 1 and at most {MOST_EXPANSION:g}"
            raise SpecError("expand", rule, self.expand)
        for name, only in (("score", GATES), ("structure", "channels")):
            if getattr(self, name) != only:
                rule = f"must be {only} where prune.when is gates"
                raise SpecError(name, rule, getattr(self, name))
        if self.scope not in ("global", "layerwise"):
            rule = "must be global or layerwise where prune.when is gates"
            raise SpecError("scope", rule, self.scope)

    def in_steps(self, steps_per_epoch: int) -> PruneGates:
        """The spec with durations in steps, of ``gate_batch_size`` examples each."""
        steps = steps_in(self.gate_steps, steps_per_epoch)
        every = max(1, steps_in(self.gate_every, steps_per_epoch, steps))
        return dataclasses.replace(self, gate_steps=f"{steps}it", gate_every=f"{every}it")


Pruning = PruneAfter | PruneBefore | PruneDuring | PruneNever | PruneGates

PRUNING: dict[str, type[Pruning]] = {
    "after": PruneAfter,
    "before": PruneBefore,
    "during": PruneDuring,
    "never": PruneNever,
    "gates": PruneGates,
}
"""The spec of each ``when``."""


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


_FIELDS = {when: {f.name for f in dataclasses.fields(spec)} for when, spec in PRUNING.items()}

PRUNE_DEFAULTS: dict[str, Any] = {
    "when": "after",
    **{f.name: _default(f) for f in dataclasses.fields(PruneBase)},
    **{f.name: _default(f) for spec in PRUNING.values() for f in dataclasses.fields(spec)
       if f.name != "when"},
}  # fmt: skip
"""Defaults of the fields of all specs."""


def fields_of_when(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their ``when``, without the defaults of other specs' fields.

    A value other than the default in a field of another spec is a mistake: it has no effect.

    Raises:
        SpecError: ``when`` is not known, or a field needs another ``when``.
    """
    when = values.get("when", "after")
    if not isinstance(when, str) or when not in PRUNING:
        raise SpecError("when", "is not known", when, PRUNING)
    foreign = PRUNE_DEFAULTS.keys() - _FIELDS[when]
    for name, value in values.items():
        if name in foreign and value != PRUNE_DEFAULTS[name]:
            whens = " or ".join(other for other, names in _FIELDS.items() if name in names)
            raise SpecError(name, f"needs prune.when: {whens}", value)
    return {"when": when, **{name: v for name, v in values.items() if name not in foreign}}


@overload
def PruneSpec(*, when: Literal["after"] = "after", **fields: Any) -> PruneAfter: ...
@overload
def PruneSpec(*, when: Literal["before"], **fields: Any) -> PruneBefore: ...
@overload
def PruneSpec(*, when: Literal["during"], **fields: Any) -> PruneDuring: ...
@overload
def PruneSpec(*, when: Literal["never"], **fields: Any) -> PruneNever: ...
@overload
def PruneSpec(*, when: Literal["gates"], **fields: Any) -> PruneGates: ...
def PruneSpec(**fields: Any) -> Pruning:  # noqa: N802
    """The pruning spec of a ``when``: after, before, during, never or gates; by default, after.

    >>> PruneSpec(when="before", score="snip").rounds is None
    True

    Raises:
        SpecError: a field is wrong, or needs another ``when``.
    """
    values = fields_of_when(fields)
    return PRUNING[values["when"]](**values)
