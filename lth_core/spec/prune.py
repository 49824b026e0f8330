"""Specs of pruning: one for each value of ``when``, with a shared base.

`PruneSpec` makes the spec that ``when`` names; a study file has the same fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal, overload

from lth_core.errors import SpecError
from lth_core.spec.fields import steps_in
from lth_core.spec.prune_base import GATES, LEARNED, PruneBase

Grow = Literal["none", "random", "gradient"]

SWAP = 0.3
"""Default. Another value is an error in a spec that does not use the field."""
LEAST_INTERVAL = 20
"""Least number of steps of a share of training between two changes in which weights grow back."""
MOST_EXPANSION = 10.0
"""Largest factor by which a network is widened before gates are trained."""


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
    """during: interval between changes; with grow, a share of training is at least 20 steps: each
    change of RigL's takes the place of a step."""
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

    @property
    def shrinks(self) -> bool:
        """Whether the mask loses weights in training."""
        return self.schedule != "constant" and (self.schedule is not None or self.grow == "none")

    @property
    def final_density_from(self) -> int:
        """Number of steps after which an evaluation has the level's density; 0: any has. The
        durations must be in steps."""
        # The last change is in the step after `end` steps.
        return steps_in(self.end) + 1 if self.shrinks else 0

    def in_steps(self, steps_per_epoch: int, steps: int, first: int = 0) -> PruneDuring:
        """The spec with durations in steps of the schedule.

        Args:
            first: the step at which the ticket's run starts: the rewind point, or 0 where the
                schedule restarts there. The mask does not change before it.
        """
        # One percent of a short training may round to 0 steps, or to a few.
        grows, is_share = self.grow != "none", str(self.every).endswith("%")
        least = {"begin": first, "end": 0, "every": LEAST_INTERVAL if grows and is_share else 1}
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
