"""Everything that decides a result, as frozen values with a digest.

A result is a pure function of its spec. ``digest`` is sha256 over canonical JSON of all fields
(defaults too) and the schema version; a field marked ``WHERE`` says where things lie on this
machine, not what they are, and stays out of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from lth_core.checks import DURATION, Checks, steps_in
from lth_core.errors import SpecError

SCHEMA = 1
"""Raised whenever the same spec begins to mean another computation."""

WHERE: dict[str, Any] = {"where": True}

Augment = Literal["none", "flip", "crop", "crop_flip"]
Initialization = Literal[
    "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "as_built"
]
Optimizer = Literal["sgd", "adam"]
Schedule = Literal["constant", "multistep", "cosine"]
Precision = Literal["fp32", "tf32", "bf16"]
Scope = Literal["global", "layerwise"]

_STRICT = {"extra": "forbid", "use_attribute_docstrings": True}


def canonical_json(value: object) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(value: object) -> str:
    """Hex digest of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def describe(spec: object) -> Any:
    """What a spec says, as JSON-able values: every field that decides the result."""
    if dataclasses.is_dataclass(spec) and not isinstance(spec, type):
        return {
            f.name: describe(getattr(spec, f.name))
            for f in dataclasses.fields(spec)
            if not f.metadata.get("where")
        }
    if isinstance(spec, dict):
        return {str(key): describe(value) for key, value in spec.items()}
    if isinstance(spec, (tuple, list)):
        return [describe(value) for value in spec]
    return spec


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec(Checks):
    """Which examples are trained on, chosen by and tested on."""

    __pydantic_config__ = _STRICT

    name: str = "digits"
    """A dataset of `lth list datasets`, `folder:PATH` (train/CLASS/*, test/CLASS/*), or
    `package.module:factory`."""
    root: str = field(default="~/data", metadata=WHERE)
    """Folder that holds (or gets) downloaded datasets. Not part of the digest."""
    download: bool = field(default=False, metadata=WHERE)
    """Whether an absent dataset may be downloaded into root. Not part of the digest."""
    validation: float = 0.1
    """Training examples held out to choose the early-stop step: a count if 1 or more, else a
    share of the training set."""
    fraction: float = 1.0
    """Share of the training examples that is used, in (0, 1]; drawn before validation is split."""
    augment: Augment = "none"
    """Per example and epoch: horizontal flip, 4-pixel padded random crop, or both."""
    split_seed: int = 0
    """Draws the subsample and the validation split; replicates share it."""
    fingerprint: str = ""
    """Digest of the content where the name does not determine it; filled in by `resolve`."""

    def __post_init__(self) -> None:
        self._normalize()
        self._one_of("augment", Augment)
        self._number("split_seed", 0)
        if not isinstance(self.fraction, float) or not 0 < self.fraction <= 1:
            raise SpecError("fraction", "must be in (0, 1]", self.fraction)
        count = self.validation
        if not isinstance(count, float) or count <= 0 or (count > 1 and count != int(count)):
            raise SpecError("validation", "must be a whole count or a share in (0, 1)", count)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec(Checks):
    """The network and the distribution its weights are drawn from."""

    __pydantic_config__ = _STRICT

    name: str = "mlp"
    """A model of `lth list models`, or `package.module:factory`."""
    widths: tuple[int, ...] = (300, 100)
    """Units of each hidden layer (mlp only)."""
    width: float = 1.0
    """Multiplies every hidden width or channel count, rounded, at least 1."""
    depth: int | None = None
    """mlp: hidden layers, each as wide as the one entry of widths; conv-*: convolutions;
    resnet-*: layers, 6n+2. None: what the name says."""
    init: Initialization = "kaiming_normal"
    """Distribution of linear and convolution weights (biases 0); `as_built` keeps what the
    factory drew, for our own models PyTorch's default (uniform within 1/sqrt(fan in))."""
    fingerprint: str = ""
    """Digest of the source where the name does not determine it; filled in by `resolve`."""

    def __post_init__(self) -> None:
        self._normalize()
        self._one_of("init", Initialization)
        if not isinstance(self.width, float) or not 0 < self.width < float("inf"):
            raise SpecError("width", "must be a positive number", self.width)
        if self.depth is not None:
            self._number("depth", 1)
        if not self.widths or any(type(w) is not int or w < 1 for w in self.widths):
            raise SpecError("widths", "must be whole numbers of at least 1", self.widths)
        if self.depth is not None and self.name == "mlp" and len(self.widths) > 1:
            raise SpecError(
                "depth", "repeats a single width, so widths must have one entry", self.widths
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec(Checks):
    """How a network is trained."""

    __pydantic_config__ = _STRICT

    optimizer: Optimizer = "adam"
    """torch.optim's SGD or Adam."""
    lr: float = 1.2e-3
    """Learning rate before the schedule, above 0."""
    momentum: float = 0.0
    """SGD's momentum, in [0, 1)."""
    nesterov: bool = False
    """SGD's Nesterov momentum."""
    weight_decay: float = 0.0
    """L2 penalty, as torch.optim adds it to the gradient of every parameter."""
    batch_size: int = 60
    """Examples a step; the last batch of an epoch may be smaller, none is dropped."""
    steps: int | str = "600it"
    """Length of the dense run: steps (`600it`) or epochs (`2ep`)."""
    schedule: Schedule = "constant"
    """Learning rate over steps, after warm-up."""
    milestones: tuple[int | str, ...] = ()
    """multistep: when the rate is multiplied by gamma."""
    gamma: float = 0.1
    """multistep: the factor at each milestone."""
    warmup: int | str = "0it"
    """Linear warm-up from 0 over this long."""
    evaluate_every: int | str = "20it"
    """Grid on which validation and test are evaluated; the last step always is."""
    precision: Precision = "fp32"
    """Arithmetic of the forward and backward pass; weights stay float32."""
    replay_order: bool = False
    """True: every level sees the dense run's batches in the dense run's order."""

    def __post_init__(self) -> None:
        self._normalize()
        for name, literal in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("precision", Precision),
        ):
            self._one_of(name, literal)
        if not isinstance(self.lr, float) or not 0 < self.lr < float("inf"):
            raise SpecError("lr", "must be a positive number", self.lr)
        self._share("momentum", self.momentum)
        self._number("weight_decay", 0)
        self._number("gamma", 0, 1)
        self._number("batch_size", 1)
        self._duration("steps", positive=True)
        self._duration("evaluate_every", positive=True)
        self._duration("warmup")
        self._milestones()
        if self.nesterov and not self.momentum:
            raise SpecError("nesterov", "needs train.momentum above 0", self.momentum)

    def _milestones(self) -> None:
        spelled = tuple(f"{m}it" if type(m) is int else m for m in self.milestones)
        for milestone in spelled:
            if not isinstance(milestone, str) or not DURATION.fullmatch(milestone):
                raise SpecError("milestones", "must be durations such as '91ep'", milestone)
        self._set("milestones", spelled)
        if (self.schedule == "multistep") != bool(spelled):
            raise SpecError("milestones", "go with schedule: multistep, and only with it", spelled)

    def resolved(self, steps_per_epoch: int) -> TrainSpec:
        """The same spec with every duration in steps."""

        def as_steps(duration: int | str) -> str:
            return f"{steps_in(duration, steps_per_epoch)}it"

        return dataclasses.replace(
            self,
            steps=as_steps(self.steps),
            warmup=as_steps(self.warmup),
            evaluate_every=as_steps(self.evaluate_every),
            milestones=tuple(as_steps(m) for m in self.milestones),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneSpec(Checks):
    """Which surviving weights one level removes."""

    __pydantic_config__ = _STRICT

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


@dataclass(frozen=True, kw_only=True, slots=True)
class TicketSpec(Checks):
    """One search for tickets: a dense run, then `levels` prunings with their branches."""

    __pydantic_config__ = _STRICT

    data: DataSpec = field(default_factory=DataSpec)
    """Which examples."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """Which network."""
    train: TrainSpec = field(default_factory=TrainSpec)
    """How it is trained."""
    prune: PruneSpec = field(default_factory=PruneSpec)
    """How it is pruned."""
    levels: int = 15
    """Prunings applied, one after the other; 0 is the dense run alone."""
    rewind: int | str = "0it"
    """Rewind point: the step (`500it`) or epoch (`2ep`) whose weights a ticket starts from."""
    branches: tuple[str, ...] = ("ticket", "reinit", "random_mask")
    """What is trained at each level; see `lth list branches`."""
    seed: int = 0
    """The replicate: draws initialization, data order, augmentation and control masks."""

    def __post_init__(self) -> None:
        self._normalize()
        self._number("levels", 0)
        self._number("seed", 0)
        self._duration("rewind")
        if "ticket" not in self.branches or len(set(self.branches)) < len(self.branches):
            raise SpecError("branches", "must name 'ticket', and each branch once", self.branches)

    def digest(self) -> str:
        """sha256 of all that decides the result."""
        return sha256({"schema": SCHEMA, "kind": "ticket_spec", **describe(self)})
