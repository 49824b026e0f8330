"""Spec of the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lth_core.errors import SpecError
from lth_core.spec.digest import NOT_DECIDING, added_later
from lth_core.spec.fields import STRICT, Checks

Augment = Literal["none", "flip", "crop", "crop_flip"]
Alpha = Literal["black", "white"]
Normalization = Literal["dataset", "per_image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec(Checks):
    """Training, validation and test examples."""

    __pydantic_config__ = STRICT

    name: str = "digits"
    """A dataset of `lth list datasets`, `folder:PATH` (train/CLASS/*, test/CLASS/* and, if there,
    validation/CLASS/*), or `package.module:factory`."""
    root: str = field(default="~/data", metadata=NOT_DECIDING)
    """Folder of downloaded datasets. Not part of the digest."""
    download: bool = field(default=False, metadata=NOT_DECIDING)
    """Whether an absent dataset may be downloaded into root. Not part of the digest."""
    validation: float = 0.1
    """Training examples set aside to choose the early-stop step: a count if 1 or more, else a share
    of the training set. 0: all of them train, and there is no early stop to report. It does not
    apply to data that have their own validation part: that part is used whole."""
    fraction: float = 1.0
    """Share of the training examples to use, in (0, 1]; drawn before the validation split."""
    # Older code dropped alpha, which mostly gave black: transparent pixels are often stored as 0.
    alpha: Alpha = field(default="black", metadata=added_later(implied="black"))
    """Colour behind the transparent pixels of images in a folder."""
    normalize: Normalization = field(default="dataset", metadata=added_later(implied="dataset"))
    """Scaling of every example, after augmentation: by the mean and deviation that belong to the
    dataset, or each image by its own (`per_image`), as TensorFlow's per_image_standardization."""
    augment: Augment = "none"
    """Augmentation, drawn for each example and epoch: horizontal flip, random crop after padding by
    4 pixels, both, or none."""
    split_seed: int = 0
    """Random seed of the subsample, the validation split and label noise; replicates share it."""
    label_noise: float = 0.0
    """Share of the training labels that are replaced by another class, drawn uniformly by
    split_seed, in [0, 1); validation and test stay clean."""
    fingerprint: str = ""
    """Digest of the content where the name does not determine it; set by `resolve`."""

    def __post_init__(self) -> None:
        self._normalize()
        self._one_of("augment", Augment)
        self._one_of("alpha", Alpha)
        self._one_of("normalize", Normalization)
        self._number("split_seed", 0)
        self._share("label_noise", self.label_noise)
        if not isinstance(self.fraction, float) or not 0 < self.fraction <= 1:
            raise SpecError("fraction", "must be in (0, 1]", self.fraction)
        count = self.validation
        if not isinstance(count, float) or count < 0 or (count > 1 and count != int(count)):
            raise SpecError("validation", "must be 0, a whole count or a share in (0, 1)", count)
