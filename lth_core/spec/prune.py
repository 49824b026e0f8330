"""How a network is pruned."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from lth_core.errors import SpecError
from lth_core.spec.fields import STRICT, Checks, steps_in

When = Literal["before", "during", "after", "never"]
Grow = Literal["none", "random", "gradient"]
Statistics = Literal["batch", "running"]

SCOPES = ("global", "layerwise", "erk", "like:SCORE")
STRUCTURES = ("weights", "channels", "neurons", "N:M")
PATTERN = re.compile(r"([1-9]\d*):([1-9]\d*)")
FRACTION = 0.2
TEMPERATURE = 200.0
LEARNED = ("edge-popup", "supermask")

_GOES_WITH = {
    "one_shot": ("after",),
    "rounds": ("before",),
    "begin": ("during",),
    "end": ("during",),
    "every": ("during",),
    "grow": ("during",),
    "swap": ("during",),
    "schedule": ("before", "during"),
    "lr": ("never",),
}
"""Fields that mean something for some values of ``when`` alone."""


def pattern_of(structure: str) -> tuple[int, int] | None:
    """(N, M) of structure N:M, else None."""
    match = PATTERN.fullmatch(structure)
    return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneSpec(Checks):
    """Which weights a level removes, and when."""

    __pydantic_config__ = STRICT

    when: When = "after"
    """after: trained weights are scored, level after level. before: the weights of the rewind point
    are, and each level finds its mask anew, at the density that as many prunings leave. during: so
    too, while they train. never: nothing is trained but a mask over them."""
    score: str = "magnitude"
    """A score of `lth list scores`, or your own `package.module:function`; the lowest go first."""
    scope: str = "layerwise"
    """Which weights compete, and so how sparse each layer gets; see `lth list scopes`."""
    structure: str = "weights"
    """What goes as a whole: single `weights`, `channels` (filters) of convolutions, `neurons` of
    linear layers, or `N:M`, such as 2:4: N of every M weights in a row stay."""
    fraction: float = FRACTION
    """Share of the surviving weights that one level removes, in [0, 1)."""
    densities: tuple[float, ...] = ()
    """Density of each level, falling, each in (0, 1): in place of fraction, for unequal steps."""
    output_fraction: float | None = None
    """The output layer's own fraction; None: as the others."""
    layer_fractions: dict[str, float] = field(default_factory=dict, hash=False)
    """Own fractions by layer name or pattern (`conv*: 0.1`); such a layer competes with itself.
    A name goes before a pattern, and among patterns the later in the alphabet."""
    ignore: tuple[str, ...] = ()
    """Layers (names or patterns; `output` is the last one) that stay dense and out of the count."""
    one_shot: bool = False
    """after: every level prunes the dense run at once, to the density of the iterative way."""
    rounds: int | None = None
    """before: scored and pruned so often on the way to a level's density. None: 100 for synflow,
    else 1."""
    examples: int = 10
    """Training examples of each class that a score with gradients looks at."""
    statistics: Statistics = "batch"
    """With what batch norm works where a score with gradients looks at a network: the statistics of
    those examples, as in training, or the running ones, which before training do nothing."""
    temperature: float = TEMPERATURE
    """grasp: divides the logits, so that all classes are about as likely."""
    schedule: str | None = None
    """How density falls over rounds or training; see `lth list schedules`. None: exponential over
    rounds, cubic during training, constant where weights grow back."""
    begin: int | str = "0%"
    """during: when the mask first changes."""
    end: int | str = "75%"
    """during: from when on it stays."""
    every: int | str = "1%"
    """during: how often it changes."""
    grow: Grow = "none"
    """during: how pruned weights are chosen to come back, at 0; see `lth list grow`."""
    swap: float = 0.3
    """during, with grow: share of each layer's weights that the first change swaps; it falls to 0
    at the end, as a cosine."""
    lr: float | None = None
    """never: learning rate of the mask. None: train.lr."""
    fingerprint: str = ""
    """Digest of the source of a score of your own; filled in by `resolve`."""

    def __post_init__(self) -> None:
        self._normalize()
        self._one_of("when", When)
        self._one_of("grow", Grow)
        self._one_of("statistics", Statistics)
        if self.scope not in SCOPES[:-1] and not re.fullmatch("like:.+", self.scope):
            raise SpecError("scope", "is not known", self.scope, SCOPES)
        self._fractions()
        self._densities()
        self._share("swap", self.swap)
        self._number("examples", 1)
        for name in ("begin", "end"):
            self._duration(name)
        self._duration("every", positive=True)
        if self.rounds is not None:
            self._number("rounds", 1)
        for name in ("lr", "temperature"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise SpecError(name, "must be a positive number", value)
        self._go_together()
        self._structure()

    def _fractions(self) -> None:
        self._share("fraction", self.fraction)
        if self.output_fraction is not None:
            self._share("output_fraction", self.output_fraction)
        for layer, fraction in self.layer_fractions.items():
            self._share(f"layer_fractions.{layer}", fraction)
        # The last match counts. Sorted, so that specs of one digest mean one thing.
        in_order = sorted(self.layer_fractions, key=lambda name: (not set(name) & set("*?["), name))
        self._set("layer_fractions", {name: float(self.layer_fractions[name]) for name in in_order})

    def _densities(self) -> None:
        falling = all(isinstance(d, (int, float)) for d in self.densities)
        for last, density in zip((1.0, *self.densities), self.densities, strict=False):
            falling = falling and 0 < density < last
        if not falling:
            raise SpecError("densities", "must fall, all in (0, 1)", self.densities)
        self._set("densities", tuple(float(density) for density in self.densities))
        if self.densities and self.fraction != FRACTION:
            raise SpecError("fraction", "is not used beside densities", self.fraction)

    def _go_together(self) -> None:
        """A field that would mean nothing is a mistake, and one digest more for the same thing."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        for name, whens in _GOES_WITH.items():
            value = getattr(self, name)
            if self.when not in whens and value != defaults[name]:
                raise SpecError(name, f"goes with when: {' or '.join(whens)}, and only so", value)
        if "grasp" not in (self.score, self.scope[5:]) and self.temperature != TEMPERATURE:
            raise SpecError("temperature", "goes with score: grasp, and only so", self.temperature)
        if self.grow == "none" and self.swap != defaults["swap"]:
            raise SpecError("swap", "goes with grow: random or gradient", self.swap)
        if self.scope.startswith("like:") and self.when not in ("before", "after"):
            raise SpecError("scope", "goes with when: before or after, and only so", self.scope)
        if (self.when == "never") != (self.score in LEARNED):
            rule = "is learned, and goes with when: never"
            if self.when == "never":
                rule = "must be learned where nothing else is trained"
            raise SpecError("score", rule, self.score, LEARNED)

    def _structure(self) -> None:
        if self.structure not in STRUCTURES[:-1] and not self.pattern:
            raise SpecError("structure", "is not known", self.structure, STRUCTURES)
        if self.structure != "weights" and (self.when == "never" or self.grow != "none"):
            rule = "must be weights where masks are learned or weights grow back"
            raise SpecError("structure", rule, self.structure)
        if not self.pattern:
            return
        stay, of = self.pattern
        if stay > of:
            raise SpecError("structure", "must keep at most M of M weights", self.structure)
        if self.when == "during":
            raise SpecError("structure", "must not be N:M during training", self.structure)
        if abs(1 - self.fraction - stay / of) > 1e-9:
            rule = f"must be {1 - stay / of:g}, what structure: {self.structure} removes"
            raise SpecError("fraction", rule, self.fraction)
        own = self.layer_fractions or self.densities or self.output_fraction is not None
        if own or self.scope != "layerwise":
            rule = "leaves no layer a fraction of its own; scope must be layerwise"
            raise SpecError("structure", rule, self.structure)

    @property
    def pattern(self) -> tuple[int, int] | None:
        """(N, M) of structure N:M, else None."""
        return pattern_of(self.structure)

    def resolved(
        self, steps_per_epoch: int, steps: int, rewind: int = 0, **known: Any
    ) -> PruneSpec:
        """The same spec with durations in steps, and ``known`` in place of fields left open."""
        if self.when == "during":
            # A mask changes from the rewind point on; a percent of a short training is no step.
            for name, least in (("begin", rewind), ("end", 0), ("every", 1)):
                duration = steps_in(getattr(self, name), steps_per_epoch, steps)
                known[name] = f"{max(least, duration)}it"
        return dataclasses.replace(self, **known)
