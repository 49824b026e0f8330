"""Images for speeds and the figure, on a machine without torchvision."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lth_core.data import Dataset, Split
from lth_core.data.dataset import raw
from lth_core.spec import DataSpec

ROOT = Path(__file__).parents[2]
MNIST_LIKE, CIFAR_LIKE, MNIST = (
    f"gpu_images:{name}" for name in ("mnist_like", "cifar_like", "mnist")
)


def mnist_folder() -> Path | None:
    """MNIST's files in LTH_DATA, or in shared/data beside or in the checkout; None without them."""
    folders = [ROOT.parent / "shared" / "data", ROOT / "shared" / "data"]
    if "LTH_DATA" in os.environ:
        folders = [Path(os.environ["LTH_DATA"])]
    found = (folder / "MNIST" / "raw" for folder in folders)
    return next((each for each in found if (each / "train-images-idx3-ubyte").is_file()), None)


def mnist(spec: DataSpec) -> Dataset:
    """MNIST, 60,000 + 10,000 images."""
    folder = mnist_folder()
    assert folder is not None
    parts = []
    for part in ("train", "t10k"):
        x = _bytes(folder / f"{part}-images-idx3-ubyte", 16).view(-1, 1, 28, 28)
        parts.append(Split(x, _bytes(folder / f"{part}-labels-idx1-ubyte", 8).long()))
    mean, std = torch.full((1, 1, 1), 33.3285), torch.full((1, 1, 1), 78.5655)
    return raw(*parts, mean, std, 10)


def _bytes(file: Path, header: int) -> Tensor:
    """The bytes of a file behind its header."""
    return torch.from_numpy(np.fromfile(file, dtype=np.uint8, offset=header))


def mnist_like(spec: DataSpec) -> Dataset:
    """60,000 + 1,000 images of random bytes, as large as MNIST's."""
    return _made_up((1, 28, 28), 60_000)


def cifar_like(spec: DataSpec) -> Dataset:
    """50,000 + 1,000 images of random bytes, as large as CIFAR-10's."""
    return _made_up((3, 32, 32), 50_000)


def _made_up(shape: tuple[int, ...], count: int) -> Dataset:
    stream = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count + 1000, *shape), generator=stream, dtype=torch.uint8)
    y = torch.arange(count + 1000) % 10
    size = (shape[0], 1, 1)
    return raw(Split(x[:count], y[:count]), Split(x[count:], y[count:]), torch.full(size, 127.5),
               torch.full(size, 73.9), 10)  # fmt: skip
