"""Images of the benchmarks: real ones where they are found, else made-up ones of the same shape.

A training step takes as long on either. The functions are also datasets that a study can name, so
that ours and the textbook loop read the same pixels.
"""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lth_core.data import sources
from lth_core.data.dataset import Dataset, Split, raw
from lth_core.spec import DataSpec

MNIST, CIFAR10 = "sweeps.bench.baselines.images:mnist", "sweeps.bench.baselines.images:cifar10"
HALF_OF_MNIST = "sweeps.bench.baselines.images:half_of_mnist"
"""Names of the datasets in a `DataSpec`."""
ARCHIVE = "cifar10-images.tar.xz"
"""CIFAR-10 as JPEG files, train/CLASS/* and test/CLASS/*."""
ONE_IN = 10
"""One of as many images of the archive is read: 5,000 + 1,000."""
MEAN = {MNIST: (0.1307,), HALF_OF_MNIST: (0.1307,), CIFAR10: (0.4914, 0.4822, 0.4465)}
STD = {MNIST: (0.3081,), HALF_OF_MNIST: (0.3081,), CIFAR10: (0.2470, 0.2435, 0.2616)}
"""Means and deviations of pixels in 0..1, by channel."""


def folder() -> Path:
    """Absolute path of the images' folder: LTH_DATA, or shared/data beside the checkout."""
    beside = Path(__file__).parents[3].parent / "shared" / "data"
    return Path(os.environ.get("LTH_DATA", beside)).absolute()


def source(name: str) -> str:
    """Origin of a benchmark's images, in words; of other data the name."""
    if name not in MEAN:
        return name
    if name in (MNIST, HALF_OF_MNIST):
        return "MNIST" if _has_mnist() else "made-up images like MNIST's"
    return "CIFAR-10" if (folder() / ARCHIVE).is_file() else "made-up images like CIFAR-10's"


def mnist(spec: DataSpec) -> Dataset:
    """MNIST, 60,000 + 10,000 images; made-up ones where it is not found."""
    if _has_mnist():
        found = sources.mnist(replace(spec, name="mnist", root=str(folder())))
        return _dataset(MNIST, found.train, found.test)
    return _dataset(MNIST, made_up(60_000, (1, 28, 28)), made_up(10_000, (1, 28, 28)))


def half_of_mnist(spec: DataSpec) -> Dataset:
    """The first half of `mnist`'s training images, and of its test images."""
    whole = mnist(spec)
    train, test = (part.at(torch.arange(len(part) // 2)) for part in (whole.train, whole.test))
    return replace(whole, train=train, test=test)


def cifar10(spec: DataSpec) -> Dataset:
    """A tenth of CIFAR-10's images, 5,000 + 1,000; made-up ones where they are not found."""
    if (folder() / ARCHIVE).is_file():
        return _dataset(CIFAR10, *_archived(folder() / ARCHIVE))
    return _dataset(CIFAR10, made_up(5_000, (3, 32, 32)), made_up(1_000, (3, 32, 32)))


def made_up(count: int, shape: tuple[int, ...]) -> Split:
    """Images (count, channels, height, width) of random bytes, of ten classes in turns."""
    pixels = torch.randint(256, (count, *shape), generator=torch.Generator().manual_seed(0))
    return Split(pixels.to(torch.uint8), torch.arange(count) % 10)


def _has_mnist() -> bool:
    return (folder() / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()


def _dataset(name: str, train: Split, test: Split) -> Dataset:
    mean, std = (torch.tensor(x[name]).view(-1, 1, 1) * 255 for x in (MEAN, STD))
    return raw(train, test, mean, std, 10)


@cache
def _archived(archive: Path) -> tuple[Split, Split]:
    """One in ten images of an archive of JPEG files, training and test."""
    pixels: dict[str, list[Tensor]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    classes: dict[str, int] = {}
    with tarfile.open(archive) as opened:
        files = (member for member in opened if member.isfile())
        for number, member in enumerate(files):
            if number % ONE_IN:
                continue
            part, name, _ = member.name.removeprefix("./").split("/")
            pixels[part].append(_pixels(opened, member))
            labels[part].append(classes.setdefault(name, len(classes)))
    train, test = (
        Split(torch.stack(pixels[part]), torch.tensor(labels[part])) for part in ("train", "test")
    )
    return train, test


def _pixels(opened: tarfile.TarFile, member: tarfile.TarInfo) -> Tensor:
    """One image, (3, height, width) uint8."""
    from PIL import Image

    file = opened.extractfile(member)
    assert file is not None
    image = Image.open(io.BytesIO(file.read())).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
