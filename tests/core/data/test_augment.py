import pytest
import torch
from torch import Tensor

from lth_core.data.augment import PAD, augment, draws

X = torch.randint(
    1, 256, (60, 3, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def drawn(kind: str, seed: int = 0, n: int = len(X)) -> Tensor:
    return draws(kind, n, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def slowly(x: Tensor, choice: list[int]) -> Tensor:
    """One image: flip, or rather cut out and then flip, pixel by pixel."""
    row, column, flip = choice
    channels, height, width = x.shape
    out = torch.zeros_like(x)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                from_row, from_column = i + row - PAD, (width - 1 - j if flip else j) + column - PAD
                if 0 <= from_row < height and 0 <= from_column < width:
                    out[c, i, j] = x[c, from_row, from_column]
    return out


@pytest.mark.parametrize("kind", ["none", "flip", "crop", "crop_flip"])
def test_augment_agrees_with_one_example_and_pixel_at_a_time(kind: str) -> None:
    choices = drawn(kind)
    augmented = augment(X, choices)
    assert augmented.dtype == X.dtype
    for x, choice, out in zip(X, choices.tolist(), augmented, strict=True):
        assert torch.equal(out, slowly(x, choice))


@pytest.mark.parametrize("kind", ["none", "flip", "crop", "crop_flip"])
def test_each_kind_draws_what_it_says(kind: str) -> None:
    rows, columns, flips = (set(axis.tolist()) for axis in drawn(kind, n=2000).T)
    assert flips == ({0, 1} if "flip" in kind else {0})
    assert rows == columns == (set(range(9)) if "crop" in kind else {PAD})


def test_without_augmentation_images_stay() -> None:
    assert torch.equal(augment(X, drawn("none")), X)
    assert torch.equal(augment(X, torch.tensor([[PAD, PAD, 1]]).expand(60, 3)), X.flip(-1))


def test_draws_are_seeded_and_each_example_has_its_own() -> None:
    assert torch.equal(drawn("crop_flip"), drawn("crop_flip"))
    assert not torch.equal(drawn("crop_flip"), drawn("crop_flip", seed=1))
    assert len(drawn("crop_flip").unique(dim=0)) > 40
