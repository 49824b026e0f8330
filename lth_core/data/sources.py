"""Where datasets come from: one function each, spec -> raw Dataset (validation still empty)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lth_core.data.dataset import Dataset, Split
from lth_core.errors import DataError
from lth_core.seeds import generator
from lth_core.spec import DataSpec

DIGITS_TEST = 449
"""A quarter of the 1,797 digits; always the same ones, so that every study is tested alike."""


def raw(train: Split, test: Split, mean: Tensor, std: Tensor, classes: int) -> Dataset:
    """A dataset whose validation part has not been split off yet."""
    return Dataset(train, train.at(torch.arange(0)), test, mean, std, classes)


def digits(spec: DataSpec) -> Dataset:
    """1,797 real handwritten digits, 8x8 (UCI, in scikit-learn); nothing to download."""
    # Its file alone: importing scikit-learn takes seconds, in every worker.
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("data.name: digits ship with scikit-learn, which is not installed")
    file = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.int64))
    every = Split(table[:, :64].to(torch.uint8).view(-1, 1, 8, 8), table[:, 64])
    order = torch.randperm(len(every), generator=generator(0, "digits", "test"))
    train, test = every.at(order[DIGITS_TEST:]), every.at(order[:DIGITS_TEST])
    # Mean and deviation of the 0..16 pixels of all 1,797 digits.
    mean, std = torch.tensor([4.8842]), torch.tensor([6.0168])
    return raw(train, test, mean.view(1, 1, 1), std.view(1, 1, 1), 10)


def mnist(spec: DataSpec) -> Dataset:
    """MNIST, 60,000 + 10,000 handwritten digits, 28x28 (LeCun et al. 1998), by torchvision."""
    train, test = _torchvision(spec, "MNIST", "MNIST/raw")
    pair = tuple(Split(p.data[:, None].contiguous(), p.targets.long()) for p in (train, test))
    _expect(spec, pair, (60_000, 10_000))
    # The usual 0.1307 and 0.3081, in units of a byte.
    mean, std = torch.tensor([33.3285]), torch.tensor([78.5655])
    return raw(pair[0], pair[1], mean.view(1, 1, 1), std.view(1, 1, 1), 10)


def cifar10(spec: DataSpec) -> Dataset:
    """CIFAR-10, 50,000 + 10,000 colour images, 32x32 (Krizhevsky 2009), by torchvision."""
    pair = tuple(
        Split(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets))
        for p in _torchvision(spec, "CIFAR10", "cifar-10-batches-py")
    )
    _expect(spec, pair, (50_000, 10_000))
    mean = torch.tensor([0.4914, 0.4822, 0.4465]) * 255
    std = torch.tensor([0.2470, 0.2435, 0.2616]) * 255
    return raw(pair[0], pair[1], mean.view(3, 1, 1), std.view(3, 1, 1), 10)


Outline = tuple[int, tuple[int, ...], int]
"""Training examples, shape of one, classes."""

OUTLINES: dict[str, Outline] = {
    "digits": (1797 - DIGITS_TEST, (1, 8, 8), 10),
    "mnist": (60_000, (1, 28, 28), 10),
    "cifar10": (50_000, (3, 32, 32), 10),
}
"""What is known of the named datasets without reading them, so that a plan needs no data."""


def _torchvision(spec: DataSpec, name: str, files: str) -> list[Any]:
    """torchvision's train and test part of a dataset whose ``files`` lie below the root."""
    folder = Path(spec.root).expanduser()
    try:
        if not spec.download and not (folder / files).is_dir():  # said before a slow import
            raise FileNotFoundError(f"there is no folder {files}")
        import torchvision.datasets

        if spec.download:
            folder.mkdir(parents=True, exist_ok=True)
        return [
            getattr(torchvision.datasets, name)(str(folder), train=train, download=spec.download)
            for train in (True, False)
        ]
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        if spec.download:
            raise DataError(f"data.name: {spec.name} could not be downloaded: {error}") from None
        raise DataError(
            f"data.root: {spec.name} must lie in {folder.absolute()} in torchvision's layout, "
            f"but it was not found or could not be read there ({str(error).splitlines()[0]}); "
            "name its folder with data.root=FOLDER, or add --download to fetch it"
        ) from None


def _expect(spec: DataSpec, pair: tuple[Split, ...], sizes: tuple[int, int]) -> None:
    got = tuple(len(part) for part in pair)
    if got != sizes:
        raise DataError(f"data.root: {spec.name} must have {sizes} examples, but got {got}")
