from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from toys import colours

from lth_core import data
from lth_core.data import Dataset
from lth_core.data.dataset import mislabelled, split
from lth_core.errors import SpecError
from lth_core.spec import DataSpec

Load = Callable[..., Dataset]


@pytest.fixture
def load() -> Load:
    return lambda **fields: data.load(DataSpec(**fields), torch.device("cpu"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.4, 0.99])
def test_exactly_the_share_of_training_labels_is_wrong(share: float, load: Load) -> None:
    clean, noisy = load(), load(label_noise=share)
    wrong = int((clean.train.y != noisy.train.y).sum())
    assert wrong == round(share * 1213)
    assert torch.equal(clean.train.x, noisy.train.x)
    assert set(noisy.train.y.tolist()) == set(range(10))


def test_validation_and_test_stay_clean(load: Load) -> None:
    clean, noisy = load(), load(label_noise=0.5)
    for part in ("validation", "test"):
        assert torch.equal(getattr(clean, part).x, getattr(noisy, part).x)
        assert torch.equal(getattr(clean, part).y, getattr(noisy, part).y)


def test_noise_of_one_study_leaves_the_data_of_the_next(load: Load) -> None:
    before = load().train.y.clone()
    load(label_noise=0.5)
    assert torch.equal(load(root="/elsewhere").train.y, before)


def test_split_seed_draws_which_labels_are_wrong(load: Load) -> None:
    one, again, other = (
        mislabelled(torch.zeros(500, dtype=torch.long), 0.4, 10, torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    noise = [
        load(split_seed=s, label_noise=0.4).train.y - load(split_seed=s).train.y for s in (1, 2)
    ]
    assert not torch.equal(noise[0] != 0, noise[1] != 0)


def test_more_noise_keeps_no_label_by_chance_and_is_uniform_over_other_classes() -> None:
    y = torch.full((90_000,), 3)
    noisy = mislabelled(y, 0.9, 10, torch.Generator().manual_seed(0))
    counts = torch.bincount(noisy, minlength=10)
    assert counts[3] == 9_000
    others = torch.cat([counts[:3], counts[4:]]).float()
    assert (others - 9_000).abs().max() < 5 * 9_000**0.5
    assert bool((y == 3).all())


def test_single_class_has_no_other_label() -> None:
    one = replace(colours(DataSpec()), classes=1)
    with pytest.raises(SpecError, match=r"^data\.label_noise: needs two classes"):
        split(one, DataSpec(label_noise=0.1))
