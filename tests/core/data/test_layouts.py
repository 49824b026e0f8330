"""Tiny files in torchvision's layouts, whose real ones are too large to carry."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lth_core import data
from lth_core.data import Dataset
from lth_core.errors import DataError
from lth_core.spec import DataSpec

Images = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

TRAIN, TEST = 20, 10
CLASSES = np.arange(TRAIN + TEST) % 10


def pixels(*shape: int) -> Images:
    """Distinct images: every pixel is drawn."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_fashion_mnist(root: Path) -> Images:
    images, folder = pixels(TRAIN + TEST, 1, 28, 28), root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, chosen in (("train", slice(0, TRAIN)), ("t10k", slice(TRAIN, None))):
        x, y = images[chosen], CLASSES[chosen].astype(np.uint8)
        sizes = np.array([len(x), 28, 28], ">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + x.tobytes())
        labels = b"\0\0\x08\x01" + np.array([len(y)], ">i4").tobytes() + y.tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return images


def write_svhn(root: Path) -> Images:
    """Height, width, channels, example; the digit 0 is class 10."""
    import scipy.io

    images = pixels(TRAIN + TEST, 3, 32, 32)
    for part, chosen in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, None))):
        y = np.where(CLASSES[chosen] == 0, 10, CLASSES[chosen]).astype(np.uint8)
        file = root / f"{part}_32x32.mat"
        scipy.io.savemat(file, {"X": images[chosen].transpose(2, 3, 1, 0), "y": y[:, None]})
    return images


def write_cifar10(root: Path) -> Images:
    images, folder = pixels(TRAIN + TEST, 3, 32, 32), root / "cifar-10-batches-py"
    files = {f"data_batch_{n + 1}": slice(4 * n, 4 * n + 4) for n in range(5)}
    return write_pickles(folder, images, {**files, "test_batch": slice(TRAIN, None)},
                         ("labels", "batches.meta", "label_names"))  # fmt: skip


def write_cifar100(root: Path) -> Images:
    images, folder = pixels(TRAIN + TEST, 3, 32, 32), root / "cifar-100-python"
    files = {"train": slice(0, TRAIN), "test": slice(TRAIN, None)}
    return write_pickles(folder, images, files, ("fine_labels", "meta", "fine_label_names"))


def write_pickles(
    folder: Path, images: Images, files: dict[str, slice], names: tuple[str, str, str]
) -> Images:
    labels, meta, class_names = names
    folder.mkdir()
    for name, chosen in files.items():
        batch = {"data": images[chosen].reshape(-1, 3072), labels: CLASSES[chosen].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / meta).write_bytes(pickle.dumps({class_names: list("0123456789")}))
    return images


WRITE = {
    "fashion_mnist": write_fashion_mnist,
    "svhn": write_svhn,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
}


OUTLINES = {
    "mnist": (60_000, (1, 28, 28), 10),
    "fashion_mnist": (60_000, (1, 28, 28), 10),
    "svhn": (73_257, (3, 32, 32), 10),
    "cifar10": (50_000, (3, 32, 32), 10),
    "cifar100": (50_000, (3, 32, 32), 100),
}
"""As published."""


@pytest.fixture
def unsealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision takes files of other content than the published checksums say."""
    from torchvision.datasets import cifar, svhn

    for module in (cifar, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Dataset]:
    """Loads a dataset from tmp_path that is expected to have these few examples."""

    def load(name: str, train: int = TRAIN, test: int = TEST) -> Dataset:
        few = data.DATASETS[name]._replace(train=train, test=test)
        monkeypatch.setitem(data.DATASETS, name, few)
        return data.load(DataSpec(name=name, root=str(tmp_path)), torch.device("cpu"))

    return load


@pytest.mark.parametrize("name", OUTLINES)
def test_plan_knows_the_published_sizes_without_reading(name: str) -> None:
    examples, *rest = data.outline(DataSpec(name=name, root="/nowhere", validation=1000))
    assert (examples + 1000, *rest) == OUTLINES[name]


@pytest.mark.slow
@pytest.mark.usefixtures("unsealed")
@pytest.mark.parametrize("name", WRITE)
def test_images_and_classes_are_those_of_the_files(
    name: str, tmp_path: Path, load: Callable[..., Dataset]
) -> None:
    images, made = WRITE[name](tmp_path), load(name)
    classes = {image.tobytes(): label for image, label in zip(images, CLASSES, strict=True)}
    assert [len(p) for p in (made.train, made.validation, made.test)] == [18, 2, TEST]
    assert made.test.x.dtype == torch.uint8
    assert torch.equal(made.test.x, torch.from_numpy(images[TRAIN:]))
    for part in (made.train, made.validation, made.test):
        assert [classes[x.numpy().tobytes()] for x in part.x] == part.y.tolist()
        assert part.y.dtype == torch.int64
    assert (made.shape, made.classes) == OUTLINES[name][1:]
    assert made.mean.shape == made.std.shape == (made.shape[0], 1, 1)
    assert bool(((made.mean > 60) & (made.mean < 150) & (made.std > 45) & (made.std < 95)).all())


@pytest.mark.slow
@pytest.mark.usefixtures("unsealed")
@pytest.mark.parametrize("name", WRITE)
def test_dataset_of_another_size_is_refused(
    name: str, tmp_path: Path, load: Callable[..., Dataset]
) -> None:
    WRITE[name](tmp_path)
    with pytest.raises(DataError, match=rf"{name} must have \(20, 11\) training and"):
        load(name, test=TEST + 1)


@pytest.mark.parametrize("name", ["svhn", "cifar10", "cifar100"])
@pytest.mark.slow
def test_files_with_other_checksums_are_refused(
    name: str, tmp_path: Path, load: Callable[..., Dataset]
) -> None:
    WRITE[name](tmp_path)
    with pytest.raises(DataError, match=f"{name} must lie in {tmp_path}.*not found or corrupted"):
        load(name)
