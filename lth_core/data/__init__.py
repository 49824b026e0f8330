"""Datasets by name: tensors that live on the device."""

from __future__ import annotations

from functools import lru_cache

import torch

from lth_core.data.dataset import Dataset, Split, split, split_sizes
from lth_core.data.dataset import fingerprint as content_fingerprint
from lth_core.data.folder import folder_fingerprint, load_folder
from lth_core.data.sources import SOURCES, TRAIN_SIZES
from lth_core.errors import DataError, SpecError
from lth_core.factories import load_factory
from lth_core.spec import DataSpec

__all__ = ["SOURCES", "Dataset", "Split", "fingerprint", "load", "train_size"]

KNOWN = (*SOURCES, "folder:PATH", "package.module:factory")


@lru_cache(maxsize=4)
def load(spec: DataSpec, device: torch.device) -> Dataset:
    """The dataset a spec names, split, on the device. Kept for the process's next trial.

    Raises:
        SpecError: the name is not known, or validation leaves no training examples.
        DataError: the data are absent or broken.
    """
    raw = _raw(spec)
    if spec.fingerprint and spec.fingerprint != fingerprint(spec):
        raise DataError(f"data.name: {spec.name} is not what it was when its digest was taken, "
                        f"{spec.fingerprint}")  # fmt: skip
    train, held = split_sizes(spec, len(raw.train))
    if train < 1 or held < 1:
        rule = f"must leave training examples of the {len(raw.train) * spec.fraction:g} there are"
        raise SpecError("data.validation", rule, spec.validation)
    if spec.augment != "none" and len(raw.shape) != 3:
        raise SpecError("data.augment", f"needs images, but {spec.name} has shape {raw.shape}",
                        spec.augment)  # fmt: skip
    return split(raw, spec).to(device)


def train_size(spec: DataSpec) -> int:
    """Training examples after subsampling and the validation split; reads no named dataset."""
    available = TRAIN_SIZES[spec.name] if spec.name in TRAIN_SIZES else len(_raw(spec).train)
    train, held = split_sizes(spec, available)
    if train < 1:
        rule = f"must leave training examples of the {available * spec.fraction:g} there are"
        raise SpecError("data.validation", rule, spec.validation)
    return train


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
