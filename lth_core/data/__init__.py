"""Datasets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import torch
from torch import Tensor

from lth_core.data.check import check_dataset
from lth_core.data.dataset import Dataset, Split, split, split_sizes
from lth_core.data.dataset import fingerprint as content_fingerprint
from lth_core.data.folder import content_digest, folder
from lth_core.data.packaged import digits, mnist1d, mnist_5k
from lth_core.data.sources import cifar10, cifar100, fashion_mnist, mnist, svhn
from lth_core.errors import DataError, SpecError
from lth_core.plugins import load_factory, source_fingerprint
from lth_core.seeds import derive, seeded_draws
from lth_core.spec import DataSpec

__all__ = [
    "DATASETS",
    "Dataset",
    "NamedDataset",
    "Outline",
    "PartSizes",
    "Split",
    "absolute",
    "content_sha256",
    "fingerprint",
    "forget_functions",
    "has_validation",
    "load",
    "outline",
    "part_sizes",
]

Outline = tuple[int, tuple[int, ...], int]
"""Training examples, shape of one, classes."""


class PartSizes(NamedTuple):
    """Numbers of examples of each part after the split."""

    train: int
    validation: int
    test: int


class NamedDataset(NamedTuple):
    """A dataset whose name determines its content, so that a plan reads no data."""

    read: Callable[[DataSpec], Dataset]
    train: int
    """Number of training examples, validation included."""
    test: int
    """Number of test examples."""
    shape: tuple[int, ...]
    """Shape of one example."""
    classes: int


DATASETS: dict[str, NamedDataset] = {
    "digits": NamedDataset(digits, 1_348, 449, (1, 8, 8), 10),
    "mnist1d": NamedDataset(mnist1d, 4_000, 1_000, (40,), 10),
    "mnist-5k": NamedDataset(mnist_5k, 4_000, 1_000, (1, 28, 28), 10),
    "mnist": NamedDataset(mnist, 60_000, 10_000, (1, 28, 28), 10),
    "fashion_mnist": NamedDataset(fashion_mnist, 60_000, 10_000, (1, 28, 28), 10),
    "svhn": NamedDataset(svhn, 73_257, 26_032, (3, 32, 32), 10),
    "cifar10": NamedDataset(cifar10, 50_000, 10_000, (3, 32, 32), 10),
    "cifar100": NamedDataset(cifar100, 50_000, 10_000, (3, 32, 32), 100),
}

KNOWN = (*DATASETS, "folder:PATH", "package.module:factory")
"""Names of datasets, as an error lists them."""


def load(spec: DataSpec, device: torch.device) -> Dataset:
    """The spec's dataset, split, on the device; cached for the process's next trial.

    A folder or a user's dataset without a fingerprint is not cached, because it may change.

    Raises:
        SpecError: the name is not known, or validation leaves no training examples.
        DataError: the data are missing or broken.
    """
    pinned = spec.name in DATASETS or spec.fingerprint
    return _load(spec, device) if pinned else _load.__wrapped__(spec, device)


@lru_cache(maxsize=4)
def _load(spec: DataSpec, device: torch.device) -> Dataset:
    outline(spec)
    if spec.fingerprint and spec.fingerprint != (current := fingerprint(spec)):
        raise DataError(f"data.name: {spec.name} must have fingerprint {spec.fingerprint}, as in "
                        f"its digest, but got {current or 'none'}")  # fmt: skip
    return split(_raw(spec), spec).to(device)


def outline(spec: DataSpec) -> Outline:
    """(training examples, shape of one, classes) after the split; a named dataset is not read.

    Raises:
        SpecError: validation leaves no training examples.
        DataError: data that must be read are missing or broken.
    """
    available, own_validation, _, shape, classes = _unsplit(spec)
    train, _ = split_sizes(spec, available, own_validation)
    if train < 1:
        rule = f"must leave at least one of {available * spec.fraction:g} examples for training"
        raise SpecError("data.validation", rule, spec.validation)
    for name, value, unused in (("augment", spec.augment, "none"),
                                ("normalize", spec.normalize, "dataset")):  # fmt: skip
        if value != unused and len(shape) != 3:
            rule = f"needs images, not examples of shape {shape}, so it must be {unused!r}"
            raise SpecError(f"data.{name}", rule, value)
    if spec.alpha != "black" and absolute(spec).name != "folder":
        raise SpecError("data.alpha", "applies to folder:PATH alone", spec.alpha)
    return train, shape, classes


def part_sizes(spec: DataSpec) -> PartSizes:
    """Numbers of training, validation and test examples; a named dataset is not read.

    Raises:
        SpecError: the name is not known.
        DataError: data that must be read are missing or broken.
    """
    available, own_validation, test, _, _ = _unsplit(spec)
    return PartSizes(*split_sizes(spec, available, own_validation), test)


def has_validation(spec: DataSpec) -> bool:
    """Whether there are validation examples; a named dataset is not read.

    Raises:
        SpecError: the name is not known.
        DataError: data that must be read are missing or broken.
    """
    return bool(spec.validation or (spec.name not in DATASETS and len(_raw(spec).validation)))


def extreme_examples(spec: DataSpec) -> Tensor | None:
    """Examples that show whether a network takes the ids of its data.

    Returns:
        (m, ...) float32 normalized examples, of all parts: those with the smallest or the largest
        value of a feature. None where normalization leaves whole numbers whole in no feature, as in
        every named dataset; it is not read.
    """
    if spec.name in DATASETS:
        return None
    raw = _raw(spec)
    x = torch.cat([part.x for part in (raw.train, raw.validation, raw.test)])
    flat = x.flatten(1)
    rows = torch.cat([flat.argmin(0), flat.argmax(0)]).unique()
    whole = (raw.std == 1) & (raw.mean == raw.mean.round())
    return raw.normalize(x[rows]) if whole.any() else None


def fingerprint(spec: DataSpec) -> str:
    """Digest of the content; empty for a named dataset.

    Raises:
        SpecError: the name is not known.
    """
    return "" if spec.name in DATASETS else content_fingerprint(_raw(spec))


def content_sha256(spec: DataSpec) -> str:
    """Digest of the content, of a named dataset too; reads the data.

    Raises:
        SpecError: the name is not known.
        DataError: the data are missing or broken.
    """
    return content_fingerprint(_raw(spec))


def absolute(spec: DataSpec) -> DataSpec:
    """The spec with an absolute root: ``folder:PATH`` becomes ``folder`` with PATH as its root.

    The root is not part of the digest: the content identifies a folder, not its path.

    Raises:
        SpecError: the root begins in a home folder that does not exist.
    """
    name, _, path = spec.name.partition(":")
    if name == "folder" and path:
        spec = replace(spec, name=name, root=path)
    try:
        return replace(spec, root=str(Path(spec.root).expanduser().absolute()))
    except RuntimeError:  # ~name of an unknown user
        raise SpecError("data.root", "must begin in an existing home folder", spec.root) from None


def _unsplit(spec: DataSpec) -> tuple[int, int, int, tuple[int, ...], int]:
    """Numbers of training, validation and test examples before the split, shape of one, classes."""
    if spec.name in DATASETS:
        _, train, test, shape, classes = DATASETS[spec.name]
        return train, 0, test, shape, classes
    raw = _raw(spec)
    return len(raw.train), len(raw.validation), len(raw.test), raw.shape, raw.classes


def forget_functions() -> None:
    """Look again at the code of users' own dataset functions: one with other code, or with code
    whose content is not known, is called again where its data are needed next."""
    _code.cache_clear()


def _raw(spec: DataSpec) -> Dataset:
    spec = absolute(spec)
    if ":" in spec.name:
        return _called(replace(spec, fingerprint=""), _code(spec.name))
    return _read(spec, content_digest(spec) if spec.name == "folder" else "")


@lru_cache(maxsize=16)
def _code(name: str) -> str:
    """Digest of the code of a dataset function; another one in each call if it is not known."""
    try:
        return source_fingerprint("data.name", name)
    except SpecError:
        return uuid4().hex


@lru_cache(maxsize=1)
def _called(spec: DataSpec, code: str) -> Dataset:
    """Raw dataset of a user's own function; the last one is cached, until its code changes."""
    factory = load_factory("data.name", spec.name)
    with seeded_draws(derive(0, "data")):  # whatever it draws is the same in every process
        return check_dataset(factory(spec), spec.name)


@lru_cache(maxsize=1)
def _read(spec: DataSpec, content: str) -> Dataset:
    """Raw dataset; the last one is cached, until its folder's content changes."""
    if spec.name in DATASETS:
        return _read_named(spec)
    if spec.name == "folder":
        return folder(spec, content)
    raise SpecError("data.name", "is not a known dataset", spec.name, KNOWN)


def _read_named(spec: DataSpec) -> Dataset:
    named = DATASETS[spec.name]
    dataset = named.read(spec)
    expected, got = (named.train, named.test), (len(dataset.train), len(dataset.test))
    if got != expected:
        raise DataError(f"data.root: {spec.name} must have {expected} training and test examples, "
                        f"but got {got}")  # fmt: skip
    return dataset
