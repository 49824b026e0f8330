"""The stored numbers of a training: curves, layers, digests and times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lth_core.errors import CorruptEntryError, exception_text
from lth_core.jobs.recipes import Job
from lth_core.models.layers import Layer
from lth_core.spec.fields import LARGEST
from lth_core.store.decode import DECODE_ERRORS, check


@dataclass(slots=True)
class Curves:
    """Learning curves on the evaluation grid: lists of equal length, but without validation
    examples those of validation are empty."""

    step: list[int] = field(default_factory=list)
    """Steps done when evaluated, counted from the start of the dense run's schedule."""
    train_loss: list[float] = field(default_factory=list)
    """Mean over the steps since the previous evaluation."""
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float | None] = field(default_factory=list)
    """None where the test examples were not evaluated (`train.evaluate_test`: best)."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Curves:
        """Curves from the output of `asdict`.

        Raises:
            TypeError: a value has the wrong type, or the lists differ in length.
        """
        check(values, cls, "curves")
        curves = cls(**_known(cls, values))
        lengths = {f.name: len(getattr(curves, f.name)) for f in fields(cls)}
        if not (lengths["validation_loss"] or lengths["validation_accuracy"]):
            del lengths["validation_loss"], lengths["validation_accuracy"]
        if len(set(lengths.values())) > 1:
            raise TypeError("curves must be of equal length")
        return curves

    def early_stop(self, since: int = 0) -> int | None:
        """Position of the first lowest validation loss; None without validation examples.

        Args:
            since: least number of steps; the last evaluation is after as many.
        """
        losses = {i: loss for i, loss in enumerate(self.validation_loss) if self.step[i] >= since}
        return min(losses, key=losses.__getitem__, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The stored record of a finished training, besides its weights and mask.

    Numbers that can be computed from these are measures (`lth_core.measures`), not fields. A new
    field must be ``None`` by default, or older trainings cannot be read.
    """

    curves: Curves
    layers: dict[str, Layer]
    """Every prunable layer, in the model's order, ignored ones too."""
    parameters: int
    """All parameters of the dense network."""
    kept_parameters: int | None = None
    """Parameters that are left without pruned weights, and without biases and norms of removed
    channels."""
    mask_digest: str
    ticket_digest: str
    """sha256 of the mask's bits and the starting values, as in the ticket file."""
    seconds: float
    finished_at: float
    """Unix time."""
    made_with: dict[str, str]
    """Versions, device and arithmetic."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Training:
        """Training from the output of `to_json`, of this version or another.

        Raises:
            CorruptEntryError: a field is missing, or a value is wrong or impossible.
        """
        try:
            return cls._from_json(values)
        except DECODE_ERRORS as error:
            raise CorruptEntryError(f"is not a training ({exception_text(error)})") from None

    @classmethod
    def _from_json(cls, values: Mapping[str, Any]) -> Training:
        check(values, cls, "training")
        curves = Curves.from_json(values["curves"])
        layers = {
            name: Layer(**{**_known(Layer, layer), "shape": tuple(layer["shape"])})
            for name, layer in values["layers"].items()
        }
        if not curves.step or not layers:
            raise TypeError("curves and layers must not be empty")
        if None in (curves.test_accuracy[-1], curves.test_accuracy[curves.early_stop() or 0]):
            raise TypeError("curves must have test accuracy at the early stop and at the end")
        for name, layer in layers.items():
            possible = 0 <= layer.kept <= layer.weights <= LARGEST
            if min(layer.shape, default=0) <= 0 or not possible:
                raise TypeError(f"{name} must keep 0 to all of its weights, but is {layer}")
        return cls(**{**_known(cls, values), "curves": curves, "layers": layers})


def _known(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a class's fields; fields of other versions are left out."""
    return {f.name: values[f.name] for f in fields(cls) if f.name in values}


@dataclass(frozen=True, slots=True)
class Result:
    """A job's training, and whether it came from the store."""

    job: Job
    training: Training
    reused: bool
