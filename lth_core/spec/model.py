"""Spec of the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lth_core.errors import SpecError
from lth_core.spec.digest import added_later
from lth_core.spec.fields import STRICT, Checks

Initialization = Literal[
    "kaiming_normal",
    "kaiming_uniform",
    "xavier_normal",
    "xavier_uniform",
    "lecun_normal",
    "signed_constant",
    "as_built",
]
NormInitialization = Literal["ones", "uniform", "half"]
Stem = Literal["cifar", "imagenet"]

MOST_UNITS, LARGEST_WIDTH, MOST_LAYERS = 1_000_000, 1_000.0, 10_000
"""Most units of a layer, largest width multiplier, most layers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec(Checks):
    """The network and the distribution its weights are drawn from."""

    __pydantic_config__ = STRICT

    name: str = "mlp"
    """A model of `lth list models`, or `package.module:factory`."""
    widths: tuple[int, ...] = (300, 100)
    """Units of each hidden layer (mlp, mlp-constant)."""
    width: float = 1.0
    """Multiplies every hidden width or channel count, rounded, at least 1 (mobilenet-v2: rounded to
    multiples of 8, as published); not for resnet-18 and resnet-50."""
    depth: int | None = None
    """mlp, mlp-constant: hidden layers, each as wide as the one entry of widths; conv-*:
    convolutions; resnet-8 ... resnet-110: layers, 6n+2; vgg-*: layers, 11, 13, 16 or 19;
    vit-tiny: blocks; lstm: layers; the others have one depth. None: the depth in the name."""
    stem: Stem = "cifar"
    """First layers of resnet-18, resnet-50 and mobilenet-v2: as published (`imagenet`), or for
    images of about 32 pixels a side (`cifar`)."""
    dropout: float = 0.0
    """Share of units set to 0 in training, in [0, 1): after each hidden fully connected layer, or
    before the output where there is none (vgg-*, mobilenet-v2). Not for resnet-*."""
    init: Initialization = "kaiming_normal"
    """Distribution of linear and convolution weights (biases 0). `lecun_normal`: of standard
    deviation sqrt(1/fan in); `signed_constant`: sqrt(2/fan in) with a random sign; `as_built` keeps
    the weights of the factory, for built-in models PyTorch's default (uniform within 1/sqrt(fan
    in)), for torchvision's their own."""
    norm_init: NormInitialization = field(default="ones", metadata=added_later(implied="ones"))
    """Scales of batch norm before training: as built, which is 1 in every built-in model (`ones`),
    or drawn from U[0, 1) (`uniform`), as in the code of Frankle et al. 2020, or 0.5 (`half`), as in
    that of Liu et al. 2017. Shifts stay as built, and so does every other kind of normalization."""
    gates: bool = field(default=False, metadata=added_later(implied=False))
    """Whether channels have gates, which are parameters; set by prune.when: gates for the training
    that finds them. See `lth_core.models.gates`."""
    fingerprint: str = ""
    """Digest of the source where the name does not determine it; set by `resolve`."""

    def __post_init__(self) -> None:
        self._normalize()
        self._one_of("init", Initialization)
        self._one_of("norm_init", NormInitialization)
        self._one_of("stem", Stem)
        self._share("dropout", self.dropout)
        if not isinstance(self.width, float) or not 0 < self.width <= LARGEST_WIDTH:
            rule = f"must be a positive number of at most {LARGEST_WIDTH:g}"
            raise SpecError("width", rule, self.width)
        if self.depth is not None:
            self._number("depth", 1)
            if self.depth > MOST_LAYERS:
                raise SpecError("depth", f"must be at most {MOST_LAYERS:,}", self.depth)
        if not self.widths or any(type(w) is not int or w < 1 for w in self.widths):
            raise SpecError("widths", "must be whole numbers of at least 1", self.widths)
        if max(self.widths) > MOST_UNITS:
            raise SpecError("widths", f"must be at most {MOST_UNITS:,} each", self.widths)
        if self.depth is not None and self.name.startswith("mlp") and len(self.widths) > 1:
            raise SpecError(
                "depth", "repeats a single width, so widths must have one entry", self.widths
            )
