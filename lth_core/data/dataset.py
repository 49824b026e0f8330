"""A dataset as tensors on the device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from math import prod, sqrt

import torch
from torch import Tensor

from lth_core.errors import SpecError
from lth_core.seeds import generator
from lth_core.spec import DataSpec


@dataclass(frozen=True, slots=True)
class Split:
    """Examples and their classes.

    x: (n, channels, height, width) uint8 pixels, or (n, ...) float32 features.
    y: (n,) int64 classes.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def at(self, index: Tensor) -> Split:
        """The m examples at an index, (m,) int64."""
        return Split(self.x[index], self.y[index])

    def of_each_class(self, count: int, generator: torch.Generator) -> Split:
        """``count`` random examples of each class, or all where a class has fewer."""
        order = torch.randperm(len(self), generator=generator)
        y = self.y.cpu()[order]
        chosen = torch.cat([order[y == label][:count] for label in y.unique()])
        return self.at(chosen.to(self.y.device))

    def to(self, device: torch.device) -> Split:
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples for training, for early stopping (validation) and for reporting (test).

    A raw dataset's validation part is empty, or is the dataset's own. It may stay empty after the
    split; then there is no early stop.

    mean, std: (channels, 1, 1) or broadcastable to one example, in the units of the raw x.
    per_image: whether each example is scaled by its own mean and deviation instead; the spec's
        `data.normalize` sets it.
    """

    train: Split
    validation: Split
    test: Split
    mean: Tensor
    std: Tensor
    classes: int
    per_image: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.x.shape[1:])

    def to(self, device: torch.device) -> Dataset:
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            mean=self.mean.to(device),
            std=self.std.to(device),
        )

    def normalize(self, x: Tensor) -> Tensor:
        """A raw batch (b, ...) as floats of the same shape, scaled to mean 0 and deviation 1."""
        x = x.to(self.mean.dtype)
        return standardized(x) if self.per_image else (x - self.mean).div_(self.std)


def standardized(x: Tensor) -> Tensor:
    """Examples (b, ...) float32, each scaled by the mean and deviation of its own N values.

    (x - mean) / max(std, 1/sqrt(N)), as TensorFlow's per_image_standardization; so an image of one
    colour becomes 0.
    """
    axes, values = tuple(range(1, x.dim())), prod(x.shape[1:])
    std, mean = torch.std_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / std.clamp(min=1 / sqrt(values))


def raw(
    train: Split,
    test: Split,
    mean: Tensor,
    std: Tensor,
    classes: int,
    validation: Split | None = None,
) -> Dataset:
    """A dataset before the spec's split.

    Args:
        mean, std: as in `Dataset`.
        validation: the dataset's own; without it, it is split off the training examples.
    """
    return Dataset(train, validation or train.at(torch.arange(0)), test, mean, std, classes)


def example_mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over all examples: per channel for images, per feature otherwise.

    They are computed in slices, so that not all uint8 images are in memory as floats at once.

    Args:
        x: (n, channels, ...) or (n, features).

    Returns:
        Two float32 tensors, (channels, 1, ...) or (features,).
    """
    axes = (0, *range(2, x.dim()))
    total = torch.stack([part.double().sum(axes) for part in x.split(4096)]).sum(0)
    square = torch.stack([part.double().square().sum(axes) for part in x.split(4096)]).sum(0)
    count = x.numel() // x.shape[1]
    mean = total / count
    std = (square / count - mean.square()).clamp(min=0).sqrt()
    shape = (-1, *[1] * (x.dim() - 2))
    std = torch.where(std > 0, std, torch.ones_like(std))
    return mean.float().view(shape), std.float().view(shape)


def fingerprint(dataset: Dataset) -> str:
    """Digest of a raw dataset: its examples, classes, mean and deviation."""
    parts = [dataset.train, dataset.test]
    if len(dataset.validation):  # older digests of data without it stay
        parts.append(dataset.validation)
    examples = [tensor for part in parts for tensor in (part.x, part.y)]
    return tensors_digest(*examples, dataset.mean, dataset.std)


def tensors_digest(*tensors: Tensor) -> str:
    """sha256 of the types, shapes and values of tensors of any shape, on the CPU."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def split_sizes(spec: DataSpec, available: int, own_validation: int = 0) -> tuple[int, int]:
    """Numbers of (training, validation) examples.

    Args:
        available: number of the dataset's training examples.
        own_validation: number of examples in its own validation part, used whole; 0 without one.
    """
    if own_validation or not spec.validation:
        return max(1, round(spec.fraction * available)), own_validation
    used = max(2, round(spec.fraction * available))
    if spec.validation >= 1:
        validation = int(spec.validation)
    else:
        validation = max(1, round(spec.validation * used))
    return used - validation, validation


def split(raw: Dataset, spec: DataSpec) -> Dataset:
    """The raw dataset with its training examples subsampled, split and, for a share, mislabelled.

    All three are drawn by ``split_seed``; validation and test keep their true labels. Nothing is
    split off where the dataset has its own validation part.

    Raises:
        SpecError: the spec has label noise, but there is only one class.
    """
    own = len(raw.validation)
    train, validation = split_sizes(spec, len(raw.train), own)
    order = torch.randperm(len(raw.train), generator=generator(spec.split_seed, "split"))
    first = 0 if own else validation
    examples = raw.train.at(order[first : first + train].sort().values)
    if spec.label_noise:
        if raw.classes < 2:
            raise SpecError("data.label_noise", "needs two classes or more", spec.label_noise)
        stream = generator(spec.split_seed, "label_noise")
        y = mislabelled(examples.y, spec.label_noise, raw.classes, stream)
        examples = replace(examples, y=y)
    held_out = raw.validation if own else raw.train.at(order[:validation])
    per_image = spec.normalize == "per_image"
    return replace(raw, validation=held_out, train=examples, per_image=per_image)


def mislabelled(y: Tensor, share: float, classes: int, stream: torch.Generator) -> Tensor:
    """Labels (n,) int64 of which a share, rounded to a count, is replaced by another class.

    Args:
        y: (n,) int64 in 0..classes-1; not changed.
        share: in [0, 1).
        stream: draws the labels that are replaced, and their new classes uniformly.
    """
    wrong = torch.randperm(len(y), generator=stream)[: round(share * len(y))]
    shift = torch.randint(1, classes, wrong.shape, generator=stream)
    noisy = y.clone()
    noisy[wrong] = (noisy[wrong] + shift) % classes
    return noisy
