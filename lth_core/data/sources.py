"""Datasets in torchvision's layouts: one function each, from a spec to a raw Dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lth_core.data.dataset import Dataset, Split, raw
from lth_core.errors import DataError
from lth_core.spec import DataSpec

BY_TRAIN = ({"train": True}, {"train": False})
BY_SPLIT = ({"split": "train"}, {"split": "test"})
"""Arguments of torchvision's classes that name the training and the test part."""


def mnist(spec: DataSpec) -> Dataset:
    """MNIST, 60,000 + 10,000 handwritten digits, 28x28 (LeCun et al. 1998), by torchvision."""
    return _grey(spec, "MNIST", 33.3285, 78.5655)


def fashion_mnist(spec: DataSpec) -> Dataset:
    """Fashion-MNIST, 60,000 + 10,000 articles, 28x28 (Xiao et al. 2017), by torchvision."""
    return _grey(spec, "FashionMNIST", 72.9404, 90.0212)


def svhn(spec: DataSpec) -> Dataset:
    """SVHN, 73,257 + 26,032 house numbers, 32x32 (Netzer et al. 2011), by torchvision."""
    train, test = (
        Split(torch.from_numpy(p.data).contiguous(), torch.from_numpy(p.labels).long())
        for p in _torchvision(spec, "SVHN", "train_32x32.mat", BY_SPLIT)
    )
    return _colour(train, test, 10, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


def cifar10(spec: DataSpec) -> Dataset:
    """CIFAR-10, 50,000 + 10,000 colour images, 32x32 (Krizhevsky 2009), by torchvision."""
    train, test = _cifar(spec, "CIFAR10", "cifar-10-batches-py")
    return _colour(train, test, 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def cifar100(spec: DataSpec) -> Dataset:
    """CIFAR-100, 50,000 + 10,000 colour images, 32x32 (Krizhevsky 2009), by torchvision."""
    train, test = _cifar(spec, "CIFAR100", "cifar-100-python")
    return _colour(train, test, 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def _grey(spec: DataSpec, name: str, mean: float, std: float) -> Dataset:
    """A dataset in MNIST's files; mean and std in units of a byte."""
    train, test = (
        Split(p.data[:, None].contiguous(), p.targets.long())
        for p in _torchvision(spec, name, f"{name}/raw", BY_TRAIN)
    )
    return raw(train, test, torch.tensor([[[mean]]]), torch.tensor([[[std]]]), 10)


def _cifar(spec: DataSpec, name: str, files: str) -> list[Split]:
    return [
        Split(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets))
        for p in _torchvision(spec, name, files, BY_TRAIN)
    ]


def _colour(
    train: Split, test: Split, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Dataset:
    """A dataset of 3 channels; mean and std of pixels in 0..1."""
    mean_in_bytes, std_in_bytes = (torch.tensor(x).view(-1, 1, 1) * 255 for x in (mean, std))
    return raw(train, test, mean_in_bytes, std_in_bytes, classes)


def _torchvision(
    spec: DataSpec, name: str, files: str, parts: tuple[dict[str, Any], dict[str, Any]]
) -> list[Any]:
    """The training and the test part of a dataset from torchvision.

    Args:
        name: name of torchvision's class.
        files: a file or folder of the dataset, below the root.
        parts: arguments that name the training and the test part.
    """
    folder = Path(spec.root).expanduser()
    try:
        if not spec.download and not (folder / files).exists():  # spares the slow import below
            raise FileNotFoundError(f"there is no {files}")
        import torchvision.datasets

        if spec.download:
            folder.mkdir(parents=True, exist_ok=True)
        dataset = getattr(torchvision.datasets, name)
        return [dataset(str(folder), download=spec.download, **part) for part in parts]
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        if spec.download:
            raise DataError(f"data.name: {spec.name} could not be downloaded: {error}") from None
        reason, _, _ = str(error).partition("\n")
        raise DataError(
            f"data.root: {spec.name} must lie in {folder.absolute()} in torchvision's layout, "
            f"but it was not found or could not be read there ({reason}); "
            "name its folder with data.root=FOLDER, or add --download to fetch it"
        ) from None
