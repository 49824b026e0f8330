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
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec, data, find_tickets
from lth_core.data import Dataset
from lth_core.data.dataset import standardized
from lth_core.spec import StabilitySpec

DATA = Path(os.environ.get("LTH_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
IMAGES = DATA / "cifar10-images.tar.xz"

PUBLISHED = {
    "fashion_mnist": ([0.2860], [0.3530]),
    "svhn": ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
}
"""Mean and deviation of the training pixels in 0..1, by channel, rounded to four digits."""


@pytest.mark.slow
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


def test_each_image_is_scaled_by_tensorflows_formula() -> None:
    """(x - mean) / max(std, 1/sqrt(N)) over all N values; std is over N, not N - 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), dtype=np.uint8)
    pixels[2] = 9  # of one colour
    pixels[3] = 9
    pixels[3, 1, 2, 2] = 10  # deviation 0.115, just less than 1/sqrt(75) = 0.1155
    expected = np.stack(
        [(x - x.mean()) / max(x.std(), 1 / np.sqrt(75)) for x in pixels.astype(np.float64)]
    )
    scaled = standardized(torch.from_numpy(pixels).float())
    np.testing.assert_allclose(scaled.numpy(), expected, atol=1e-5)
    assert pixels[3].std() < 1 / np.sqrt(75)
    assert not scaled[2].any()


def test_data_are_scaled_as_the_spec_says() -> None:
    plain, own = (
        data.load(DataSpec(normalize=normalize), torch.device("cpu"))
        for normalize in ("dataset", "per_image")
    )
    assert torch.equal(own.normalize(own.test.x), standardized(own.test.x.float()))
    assert torch.equal(plain.normalize(own.test.x), (own.test.x - plain.mean) / plain.std)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["after", "before"])
def test_all_that_a_network_sees_is_scaled_per_image_after_augmentation(when: str) -> None:
    """In training, evaluation, scores, predictors and on the line between two runs."""
    sizes, means, stds = set[int](), list[Tensor](), list[Tensor]()

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, nn.Conv2d) and len(inputs[0]) > 2:  # smaller ones are dry runs
            x = inputs[0].detach().double().flatten(1)
            sizes.add(len(x))
            means.append(x.mean(1))
            stds.append(x.std(1, correction=0))

    spec = TicketSpec(
        data=DataSpec(augment="crop", normalize="per_image"), levels=1,
        model=ModelSpec(name="toys:batch_norm_net"), train=TrainSpec(steps=6, batch_size=50),
        prune=PruneSpec(when=when, score="magnitude" if when == "after" else "snip"),
        branches=("ticket", "twin"), predictors=when == "after", stability=StabilitySpec(points=3),
    )  # fmt: skip
    hook = register_module_forward_pre_hook(look)
    try:
        for level in find_tickets(spec):
            _ = level.records
    finally:
        hook.remove()
    # 449 test examples are evaluated as 250 and 199.
    assert {50, 135, 199, 250, *([100] if when == "before" else [607, 1000])} <= sizes
    mean, std = torch.cat(means), torch.cat(stds)
    assert mean.abs().max() < 1e-4
    assert std.max() < 1 + 1e-4
    assert ((std - 1).abs() < 1e-4).double().mean() > 0.99  # some crops show a blank corner


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
