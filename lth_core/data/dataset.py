"""A dataset as tensors on the device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

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

    mean, std: (channels, 1, 1) or broadcastable to one example, in the units of the raw x.
    """

    train: Split
    validation: Split
    test: Split
    mean: Tensor
    std: Tensor
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.x.shape[1:])

    def to(self, device: torch.device) -> Dataset:
        return Dataset(
            self.train.to(device),
            self.validation.to(device),
            self.test.to(device),
            self.mean.to(device),
            self.std.to(device),
            self.classes,
        )

    def normalize(self, x: Tensor) -> Tensor:
        """A raw batch (b, ...) as float32 of the same shape, scaled to mean 0 and deviation 1."""
        return (x.float() - self.mean) / self.std


def raw(train: Split, test: Split, mean: Tensor, std: Tensor, classes: int) -> Dataset:
    """A dataset before its validation part is split off.

    Args:
        mean, std: as in `Dataset`.
    """
    return Dataset(train, train.at(torch.arange(0)), test, mean, std, classes)


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
    digest = hashlib.sha256()
    for tensor in (dataset.train.x, dataset.train.y, dataset.test.x, dataset.test.y,
                   dataset.mean, dataset.std):  # fmt: skip
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def split_sizes(spec: DataSpec, available: int) -> tuple[int, int]:
    """Numbers of (training, validation) examples out of ``available`` training examples."""
    used = max(2, round(spec.fraction * available))
    if spec.validation >= 1:
        validation = int(spec.validation)
    else:
        validation = max(1, round(spec.validation * used))
    return used - validation, validation


def split(raw: Dataset, spec: DataSpec) -> Dataset:
    """The raw dataset with its training examples subsampled, split and, for a share, mislabelled.

    All three are drawn by ``split_seed``; validation and test keep their true labels.

    Raises:
        SpecError: the spec has label noise, but there is only one class.
    """
    train, validation = split_sizes(spec, len(raw.train))
    order = torch.randperm(len(raw.train), generator=generator(spec.split_seed, "split"))
    examples = raw.train.at(order[validation : validation + train].sort().values)
    if spec.label_noise:
        if raw.classes < 2:
            raise SpecError("data.label_noise", "needs two classes or more", spec.label_noise)
        stream = generator(spec.split_seed, "label_noise")
        y = mislabelled(examples.y, spec.label_noise, raw.classes, stream)
        examples = replace(examples, y=y)
    return replace(raw, validation=raw.train.at(order[:validation]), train=examples)


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
