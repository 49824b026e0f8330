"""What is remembered of a training: its curves, layers, digests and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from lth_core.jobs import Job


@dataclass(slots=True)
class Curves:
    """Learning curves on the evaluation grid: lists of equal length."""

    step: list[int] = field(default_factory=list)
    """Steps done when evaluated, counted from the start of the dense run's schedule."""
    train_loss: list[float] = field(default_factory=list)
    """Mean over the steps since the evaluation before."""
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)

    @property
    def early_stop(self) -> int:
        """Position of the first lowest validation loss."""
        return self.validation_loss.index(min(self.validation_loss))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What a mask leaves of a layer."""

    shape: tuple[int, ...]
    """Of the layer's weight."""
    kept: int
    positions: int
    """Places of the output at which each weight is multiplied once, per example."""

    @property
    def weights(self) -> int:
        """Weights in all."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """All that is remembered of a finished training, besides its weights."""

    curves: Curves
    layers: dict[str, Layer]
    """Every prunable layer, in the model's order, ignored ones too."""
    parameters: int
    """All parameters of the dense network."""
    mask_digest: str
    mask_overlap: float
    """Jaccard overlap with the mask that a control imitates, of the same level; else 1."""
    mask_overlap_chance: float
    """The overlap to expect of random masks with the same layer counts."""
    travel: float | None
    """Mean distance of the kept weights from start to end, those that grew back from 0; None where
    none are kept."""
    sign_agreement: float | None
    """Share of the kept weights that end with the sign they had at the start, without those that
    grew back."""
    travel_inside: float | None
    """Mean distance, from start to end of the dense run, of the weights that this mask keeps."""
    travel_outside: float | None
    """The same of the weights that it prunes, layer by layer as many as it keeps there."""
    ticket_digest: str
    """Of the mask's bits and the starting values: what a ticket file holds."""
    seconds: float
    finished_at: float
    """Unix time."""
    made_with: dict[str, str]
    """Versions and device."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Training:
        layers = {
            name: Layer(**{**layer, "shape": tuple(layer["shape"])})
            for name, layer in said["layers"].items()
        }
        return cls(**{**said, "curves": Curves(**said["curves"]), "layers": layers})


@dataclass(frozen=True, slots=True)
class Result:
    """A job, what came of it, and whether it was trained just now or remembered."""

    job: Job
    training: Training
    reused: bool
