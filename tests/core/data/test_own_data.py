"""Checks and conversions of a user's dataset."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys

from lth_core import TicketSpec, TrainSpec, data, find_tickets
from lth_core.data import Dataset, Split
from lth_core.data.check import check_dataset
from lth_core.data.dataset import raw
from lth_core.errors import DataError
from lth_core.resolve import resolve
from lth_core.spec import DataSpec

NAME = "mine:data"
PAGE = Path(__file__).parents[3] / "docs" / "own-code.md"


def good() -> Dataset:
    """24 + 12 seeded images, 1x4x4 float, of 3 classes."""
    x = torch.randn(36, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(36) % 3
    return raw(Split(x[:24], y[:24]), Split(x[24:], y[24:]), torch.zeros(1), torch.ones(1), 3)


def changed(part: str, **tensors: Any) -> Dataset:
    dataset = good()
    return replace(dataset, **{part: replace(getattr(dataset, part), **tensors)})


def checked(dataset: object) -> Dataset:
    return check_dataset(dataset, NAME)


def same(one: Dataset, other: Dataset) -> bool:
    return data.content_fingerprint(one) == data.content_fingerprint(other)


def test_good_dataset_is_as_it_was() -> None:
    dataset = toys.colours(DataSpec())
    assert same(checked(dataset), dataset)
    assert same(checked(good()), good())


@pytest.mark.parametrize(
    "convert",
    [
        lambda y: y.int(),
        lambda y: y.to(torch.uint8),
        lambda y: y[:, None],
        lambda y: y.numpy(),
        lambda y: y.numpy().astype(">i2")[:, None],
        lambda y: y.numpy().astype(np.uint64),
        lambda y: y.tolist(),
    ],
)
def test_labels_are_converted_where_that_is_exact(convert: Callable[[Any], Any]) -> None:
    expected = good()
    for part in ("train", "test"):
        given = changed(part, y=convert(getattr(expected, part).y))
        assert checked(given).train.y.dtype == torch.int64
        assert same(checked(given), expected)


def test_labels_of_two_classes_may_be_bools() -> None:
    y = torch.arange(24) % 2
    assert torch.equal(checked(changed("train", y=y.bool())).train.y, y)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.numpy(),
        lambda x: x.numpy()[::-1][::-1],
        lambda x: np.flip(np.flip(x.numpy(), 0).copy(), 0),
        lambda x: x.numpy().astype(">f4"),
        lambda x: x.tolist(),
        lambda x: x.clone().requires_grad_(),
    ],
)
def test_features_are_converted_where_that_is_exact(convert: Callable[[Any], Any]) -> None:
    expected = good()
    given = checked(changed("train", x=convert(expected.train.x)))
    assert torch.equal(given.train.x.float(), expected.train.x)
    assert not given.train.x.requires_grad


def test_array_that_may_not_be_written_is_copied() -> None:
    x = good().train.x.numpy().copy()
    x.flags.writeable = False
    assert torch.equal(checked(changed("train", x=x)).train.x, torch.from_numpy(x.copy()))


def test_integer_features_become_floats_of_the_same_value() -> None:
    dataset = good()
    parts = {
        part: Split((getattr(dataset, part).x * 1000).to(torch.int32), getattr(dataset, part).y)
        for part in ("train", "test")
    }
    given = checked(replace(dataset, **parts))
    assert given.train.x.dtype == torch.float32
    assert torch.equal(given.train.x, parts["train"].x.float())


def test_features_of_bfloat16_become_float32() -> None:
    parts = {part: Split(getattr(good(), part).x.bfloat16(), getattr(good(), part).y)
             for part in ("train", "test")}  # fmt: skip
    given = checked(replace(good(), **parts))
    assert torch.equal(given.train.x, parts["train"].x.float())
    data.content_fingerprint(given)


def test_float64_that_float32_cannot_tell_apart_is_refused() -> None:
    seconds = 1.7e9 + torch.arange(24, dtype=torch.float64)[:, None]
    given = replace(good(), train=Split(seconds, Y), test=Split(seconds[:12], Y[:12]))
    scaled = {"mean": seconds.mean(0), "std": seconds.std(0)}
    rule = r"train.x must keep 0.01 deviations apart as float32: subtract the mean before, but got"
    with pytest.raises(DataError, match=rule):
        checked(replace(given, **scaled))
    centred = seconds - seconds.mean(0)
    checked(replace(given, train=Split(centred, Y), test=Split(centred[:12], Y[:12]),
                    mean=0.0, std=seconds.std(0)))  # fmt: skip


def test_mean_and_deviation_may_be_numbers_or_arrays() -> None:
    given = checked(replace(good(), mean=0.0, std=np.ones((1, 1, 1))))
    x = good().train.x
    assert torch.equal(given.normalize(x), x)
    assert given.normalize(x).dtype == torch.float32
    data.content_fingerprint(given)


def test_classes_may_be_a_numpy_integer() -> None:
    assert type(checked(replace(good(), classes=np.int64(3))).classes) is int


X, Y = good().train.x, good().train.y
NOTHING: Any = Split([], np.zeros(0))  # type: ignore[arg-type]


def with_value(value: float) -> torch.Tensor:
    x = X.clone()
    x[3, 0, 1, 1] = x[3, 0, 2, 2] = x[7, 0, 0, 0] = value
    return x


def with_label(value: int) -> torch.Tensor:
    y = Y.clone()
    y[:5] = value
    return y


def images(*shape: int) -> Dataset:
    """Seeded uint8 images (n, ...), with mean and deviation in 0..255."""
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(len(x)) % 3
    split = Split(x, y)
    return raw(split, split, torch.tensor([128.0]), torch.tensor([74.0]), 3)


@pytest.mark.parametrize(
    ("dataset", "rule"),
    [
        (3, "must return lth_core.data.Dataset, but got int"),
        (changed("train", y=torch.eye(3)[Y]), r"train.y must be .*y\.argmax\(1\).*got \(24, 3\)"),
        (
            changed("test", y=torch.eye(3).long()[Y[:12]]),
            r"test.y must be .*y\.argmax\(1\).*got \(12, 3\)",
        ),
        (changed("train", y=Y[None, :, None]), r"train.y must be \(n,\), but got \(1, 24, 1\)"),
        (changed("train", y=Y.float()), "train.y must be integers: y.long.* got torch.float32"),
        (changed("train", y=Y + 0j), "train.y must be integers.* got torch.complex64"),
        (
            changed("train", y=with_label(-100)),
            r"train.y must be in 0\.\.2, a class for every example, but got 5 others of 24: -100$",
        ),
        (changed("train", y=Y + 1), r"train.y must be in 0\.\.2.* got 8 others of 24: 3$"),
        (changed("test", y=Y[:12] * 9), r"test.y must be in 0\.\.2.* got 8 others of 12: 9, 18$"),
        (changed("train", y=["cat"] * 24), "train.y must be .* of numbers, but got list of <U3"),
        (
            changed("train", y=np.full(24, 2**63, np.uint64)),
            r"train.y must be less than 2\^63, but got 9223372036854775808",
        ),
        (
            changed("train", y=Y[:20]),
            "train must have one label an example, but got 24 in x and 20",
        ),
        (changed("test", x=X[:5]), "test must have one label an example, but got 5 in x and 12"),
        (changed("train", x=X[:0], y=Y[:0]), "train must have examples, but got none"),
        (changed("test", x=X[:0], y=Y[:0]), "test must have examples, but got none"),
        (replace(good(), test=None), "test must be a lth_core.data.Split, but got NoneType"),
        (replace(good(), test=(X, Y)), "test must be a lth_core.data.Split, but got tuple"),
        (changed("train", x=X[:, 0, 0, 0]), r"train.x must be \(n, features\) or .*got \(24,\)"),
        (changed("train", x=X[:, :0]), r"train.x must be \(n, features\) or .*got \(24, 0, 4, 4\)"),
        (
            changed("test", x=X[:12, :, :3]),
            r"test.x must have .* shape \(1, 4, 4\), but got \(1, 3",
        ),
        (
            changed("test", x=torch.zeros(12, 1, 4, 4, dtype=torch.uint8)),
            "test.x must be torch.float32 as in the train part, but got torch.uint8",
        ),
        (
            changed("train", x=with_value(float("nan"))),
            "train.x must be finite as float32, but got 3 values that are not, in 2 of 24 examples",
        ),
        (changed("train", x=with_value(float("inf"))), "train.x must be finite as float32.* 3 val"),
        (changed("train", x=with_value(0).double() + 1e300), "train.x must be finite as float32"),
        (changed("train", x=X.long() + 2**40), r"train.x must be uint8, float, or integers up to"),
        (changed("train", x=X + 0j), "train.x must be real, but got torch.complex64"),
        (changed("train", x=X.to_sparse()), "train.x must be dense"),
        (changed("train", x=[[1.0], [2.0, 3.0]]), "train.x must be a tensor or an array"),
        (
            replace(good(), validation=Split(X, with_label(7))),
            r"validation.y must be in 0\.\.2.* got 5 others of 24: 7$",
        ),
        (
            replace(good(), validation=Split(X[:, :, :2], Y)),
            r"validation.x must have examples of the train part's shape \(1, 4, 4\)",
        ),
        (replace(good(), validation=Split(X, Y[:0])), "validation must have one label an example"),
        (images(24, 8, 8, 3), r"train.x must be .*x\.permute\(0, 3, 1, 2\).*got \(24, 8, 8, 3\)"),
        (replace(good(), per_image=True), "per_image must be False: data.normalize sets it"),
        (replace(good(), classes=0), "classes must be at least 1, but got 0"),
        (replace(good(), classes=3.0), "classes must be an integer, but got 3.0"),
        (replace(good(), std=torch.zeros(1)), "std must be above 0, but got 0"),
        (replace(good(), mean=torch.tensor([float("nan")])), "mean must be real and finite.*nan"),
        (
            replace(images(24, 3, 8, 8), mean=torch.zeros(3)),
            r"mean must be broadcastable .* \(3, 8, 8\), such as \(3, 1, 1\), but got \(3,\)",
        ),
        (
            replace(good(), mean=torch.zeros(9, 1, 1, 1)),
            "mean must be broadcastable to one example",
        ),
        (
            replace(images(24, 3, 8, 8), mean=torch.tensor([0.5]), std=torch.tensor([0.29])),
            r"mean and std must be in the units of x, as 12\d.* and 7\d.*, but got 0.5 and 0.29",
        ),
    ],
)
def test_broken_rule_is_named_with_the_factory_the_part_and_the_value(
    dataset: object, rule: str
) -> None:
    with pytest.raises(DataError, match=rf"^data\.name: {NAME}:? {rule}") as raised:
        checked(dataset)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", [(24, 1, 8, 8), (24, 3, 1, 1), (24, 64, 100), (24, 5)])
def test_usual_shapes_are_read(shape: tuple[int, ...]) -> None:
    assert checked(images(*shape)).shape == shape[1:]


def test_long_signals_of_width_one_are_no_images_with_channels_last() -> None:
    dataset = good()
    x = torch.randn(36, 64, 100, 1)
    parts = {"train": Split(x[:24], Y), "test": Split(x[24:], dataset.test.y)}
    assert checked(replace(dataset, **parts)).shape == (64, 100, 1)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], DataSpec]]:
    """Names a dataset as a user's own."""

    def name(dataset: Any, **fields: Any) -> DataSpec:
        monkeypatch.setattr(toys, "given", lambda spec: dataset, raising=False)
        data._called.cache_clear()
        return DataSpec(name="toys:given", **fields)

    yield name
    data._called.cache_clear()


def test_example_of_the_docs_is_read() -> None:
    _, _, section = PAGE.read_text().partition("## Data\n")
    code, *_ = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    dataset = checked(names["data"](DataSpec()))
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [50, 10, 20]


def test_rules_are_checked_at_plan(given: Callable[..., DataSpec]) -> None:
    spec = given(changed("train", x=with_value(float("nan"))))
    with pytest.raises(DataError, match=r"^data\.name: toys:given: train\.x must be finite"):
        resolve(TicketSpec(data=spec))


def test_whatever_a_factory_draws_is_the_same_in_every_process(
    given: Callable[..., DataSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(spec: DataSpec) -> Dataset:
        x = torch.randn(24, 5) + random.random()
        y = np.random.randint(0, 3, 24)
        return raw(Split(x, y), Split(x, y), torch.zeros(1), torch.ones(1), 3)  # type: ignore[arg-type]

    spec = given(None)
    monkeypatch.setattr(toys, "given", drawn)
    prints = set[str]()
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        data._called.cache_clear()
        prints.add(data.fingerprint(spec))
        assert torch.initial_seed() == seed
    assert len(prints) == 1


def test_own_validation_part_is_used_whole(given: Callable[..., DataSpec]) -> None:
    own = Split(X[:7] + 1, Y[:7])
    spec = given(replace(good(), validation=own), validation=5, label_noise=0.5)
    dataset = data.load(spec, torch.device("cpu"))
    assert torch.equal(dataset.validation.x, own.x)
    assert torch.equal(dataset.validation.y, own.y)
    assert torch.equal(dataset.train.x, X)
    assert data.outline(spec)[0] == len(dataset.train) == 24
    none_split_off = data.load(replace(spec, validation=0), torch.device("cpu"))
    assert (len(none_split_off.train), len(none_split_off.validation)) == (24, 7)
    assert data.has_validation(replace(spec, validation=0))
    half = data.load(replace(spec, fraction=0.5), torch.device("cpu"))
    assert (len(half.train), len(half.validation)) == (12, 7)
    assert data.outline(replace(spec, fraction=0.5))[0] == 12


def test_own_validation_part_chooses_the_early_stop_step(given: Callable[..., DataSpec]) -> None:
    """Labels that are all wrong are never learned, so validation accuracy stays low."""
    y = torch.arange(24) % 2
    x = y.float()[:, None] * 4 - 2
    part = Split(x, y)
    dataset = raw(part, part, torch.zeros(1), torch.ones(1), 2, Split(x, 1 - y))
    spec = TicketSpec(data=given(dataset), train=TrainSpec(steps=60, lr=0.01), levels=0)
    (row,) = next(find_tickets(spec)).records
    assert row["final_test_accuracy"] == 1
    assert row["early_stop_step"] < 60


def test_own_validation_part_decides_the_fingerprint(given: Callable[..., DataSpec]) -> None:
    prints = [
        data.fingerprint(given(replace(good(), validation=part)))
        for part in (None, good().validation, NOTHING, Split(X, Y), Split(X, 2 - Y))
    ]
    assert prints[0] == prints[1] == prints[2] == data.content_fingerprint(good())
    assert len(set(prints)) == 3
