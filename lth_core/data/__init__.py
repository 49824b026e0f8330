"""Datasets by name: tensors that live on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from lth_core.data.dataset import Dataset, Split, split, split_sizes
from lth_core.data.dataset import fingerprint as content_fingerprint
from lth_core.data.folder import folder, listing_digest
from lth_core.data.packaged import digits, mnist1d, mnist_5k
from lth_core.data.sources import OUTLINES, Outline, cifar10, cifar100, fashion_mnist, mnist, svhn
from lth_core.errors import DataError, SpecError
from lth_core.plugins import load_factory
from lth_core.spec import DataSpec

__all__ = ["SOURCES", "Dataset", "Split", "fingerprint", "load", "outline", "placed"]

SOURCES: dict[str, Callable[[DataSpec], Dataset]] = {
    "digits": digits,
    "mnist1d": mnist1d,
    "mnist-5k": mnist_5k,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "svhn": svhn,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "folder": folder,
}

KNOWN = (*OUTLINES, "folder:PATH", "package.module:factory")


@lru_cache(maxsize=4)
def load(spec: DataSpec, device: torch.device) -> Dataset:
    """The dataset that a spec names, split, on the device; cached for the process's next trial.

    Raises:
        SpecError: the name is not known, or validation leaves no training examples.
        DataError: the data are missing or broken.
    """
    outline(spec)
    if spec.fingerprint and spec.fingerprint != (current := fingerprint(spec)):
        raise DataError(f"data.name: {spec.name} must have fingerprint {spec.fingerprint}, as in "
                        f"its digest, but got {current or 'none'}")  # fmt: skip
    return split(_raw(spec), spec).to(device)


def outline(spec: DataSpec) -> Outline:
    """(training examples, shape of one, classes) of the split dataset; reads no named dataset.

    Raises:
        SpecError: validation leaves no training examples.
        DataError: data that must be read are missing or broken.
    """
    if spec.name in OUTLINES:
        available, shape, classes = OUTLINES[spec.name]
    else:
        raw = _raw(spec)
        available, shape, classes = len(raw.train), raw.shape, raw.classes
    train, _ = split_sizes(spec, available)
    if train < 1:
        rule = f"must leave training examples of the {available * spec.fraction:g} there are"
        raise SpecError("data.validation", rule, spec.validation)
    if spec.augment != "none" and len(shape) != 3:
        raise SpecError("data.augment", f"needs images, not examples of shape {shape}",
                        spec.augment)  # fmt: skip
    return train, shape, classes


def fingerprint(spec: DataSpec) -> str:
    """Digest of the content, for data whose name does not determine it; else empty.

    Raises:
        SpecError: the name is not known.
    """
    return "" if spec.name in OUTLINES else content_fingerprint(_raw(spec))


def placed(spec: DataSpec) -> DataSpec:
    """The spec with an absolute root: ``folder:PATH`` is ``folder`` with PATH as its root.

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


def _raw(spec: DataSpec) -> Dataset:
    spec = placed(spec)
    return _read(spec, listing_digest(spec) if spec.name == "folder" else "")


@lru_cache(maxsize=1)
def _read(spec: DataSpec, listing: str) -> Dataset:
    """The raw data, cached until others are read or a folder's listing changes."""
    if spec.name in SOURCES:
        return SOURCES[spec.name](spec)
    if ":" not in spec.name:
        raise SpecError("data.name", "is not a known dataset", spec.name, KNOWN)
    made = load_factory("data.name", spec.name)(spec)
    if not isinstance(made, Dataset):
        raise DataError(f"data.name: {spec.name} must return lth_core.data.Dataset, but got "
                        f"{type(made).__name__}")  # fmt: skip
    return made
