"""Each dataset's own mean and deviation, held against the published ones and real images."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_layouts import WRITE, load, unsealed  # noqa: F401  fixtures

from lth_core.data import Dataset

DATA = Path(os.environ.get("LTH_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
IMAGES = DATA / "cifar10-images.tar.xz"

PUBLISHED = {
    "fashion_mnist": ([0.2860], [0.3530]),
    "svhn": ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
}
"""Mean and deviation of the training pixels in 0..1, by channel, rounded to four digits."""


@pytest.mark.usefixtures("unsealed")
@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_are_normalized_by_their_own_datasets_constants(
    name: str,
    tmp_path: Path,
    load: Callable[..., Dataset],  # noqa: F811
) -> None:
    WRITE[name](tmp_path)
    made = load(name)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in PUBLISHED[name])
    torch.testing.assert_close(made.mean / 255, mean, atol=6e-5, rtol=0)
    torch.testing.assert_close(made.std / 255, std, atol=6e-5, rtol=0)
    normalized = made.normalize(made.test.x)
    torch.testing.assert_close(normalized, (made.test.x / 255 - mean) / std, atol=2e-3, rtol=1e-3)


@pytest.mark.data
@pytest.mark.skipif(not IMAGES.is_file(), reason="needs cifar10-images.tar.xz in LTH_DATA")
def test_constants_of_cifar10_are_those_of_real_training_images() -> None:
    """One image in a hundred of each class gives each mean and deviation within 0.01."""
    with tarfile.open(IMAGES) as archive:
        train = (m for m in archive if m.name.startswith("train/") and m.name.endswith("00.jpg"))
        some = [_pixels(archive, member) for member in train]
        every = np.stack(some).reshape(-1, 3) / 255
    assert len(some) == 500
    mean, std = PUBLISHED["cifar10"]
    np.testing.assert_allclose(every.mean(0), mean, atol=0.01)
    np.testing.assert_allclose(every.std(0), std, atol=0.01)


def _pixels(archive: tarfile.TarFile, member: tarfile.TarInfo) -> np.ndarray:
    from PIL import Image

    file = archive.extractfile(member)
    assert file is not None
    return np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
