"""Datasets by name: tensors that live on the device."""

from __future__ import annotations

from functools import lru_cache

import torch

from lth_core.data.dataset import Dataset, Split, split, split_sizes
from lth_core.data.dataset import fingerprint as content_fingerprint
from lth_core.data.folder import folder_fingerprint, load_folder
from lth_core.data.sources import OUTLINES, SOURCES, Outline
from lth_core.errors import DataError, SpecError
from lth_core.factories import load_factory
from lth_core.spec import DataSpec

__all__ = ["SOURCES", "Dataset", "Split", "fingerprint", "load", "outline"]

KNOWN = (*SOURCES, "folder:PATH", "package.module:factory")


@lru_cache(maxsize=4)
def load(spec: DataSpec, device: torch.device) -> Dataset:
    """The dataset a spec names, split, on the device. Kept for the process's next trial.

    Raises:
        SpecError: the name is not known, or validation leaves no training examples.
        DataError: the data are absent or broken.
    """
    outline(spec)
    if spec.fingerprint and spec.fingerprint != fingerprint(spec):
        raise DataError(f"data.name: {spec.name} is not what it was when its digest was taken, "
                        f"{spec.fingerprint}")  # fmt: skip
    return split(_raw(spec), spec).to(device)


def outline(spec: DataSpec) -> Outline:
    """(training examples, shape of one, classes) of the split dataset; reads no named dataset.

    Raises:
        SpecError: validation leaves no training examples.
        DataError: data that must be read are absent or broken.
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
    if spec.name in SOURCES:
        return ""
    if spec.name.startswith("folder:"):
        return folder_fingerprint(spec.name.removeprefix("folder:"))
    return content_fingerprint(_raw(spec))


@lru_cache(maxsize=1)
def _raw(spec: DataSpec) -> Dataset:
    if spec.name in SOURCES:
        return SOURCES[spec.name](spec)
    if spec.name.startswith("folder:"):
        return load_folder(spec.name.removeprefix("folder:"))
    if ":" not in spec.name:
        raise SpecError("data.name", "is not a known dataset", spec.name, KNOWN)
    made = load_factory("data.name", spec.name)(spec)
    if not isinstance(made, Dataset):
        raise DataError(f"data.name: {spec.name} must return lth_core.data.Dataset, but got "
                        f"{type(made).__name__}")  # fmt: skip
    return made
