import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import colours

from lth_core import data
from lth_core.data import Dataset
from lth_core.data.dataset import example_mean_std
from lth_core.errors import DataError, SpecError
from lth_core.resolve import resolve
from lth_core.spec import DataSpec, TicketSpec

CPU = torch.device("cpu")
DATA = Path(os.environ.get("LTH_DATA", Path(__file__).parents[3].parent / "shared" / "data"))


def load(**fields: object) -> Dataset:
    return data.load(DataSpec(**fields), CPU)


def rows(x: torch.Tensor) -> list[bytes]:
    return [example.numpy().tobytes() for example in x]


def test_digits_have_their_sizes_and_every_class() -> None:
    digits = load()
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [
        1213,
        135,
        449,
    ]
    assert digits.shape == (1, 8, 8)
    assert digits.train.x.dtype == torch.uint8
    assert digits.classes == 10 == len(digits.train.y.unique()) == len(digits.test.y.unique())


def test_train_validation_and_test_share_no_example() -> None:
    digits = load()
    # The digits hold no two equal images, so pixels tell examples apart.
    parts = [set(rows(part.x)) for part in (digits.train, digits.validation, digits.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797


@pytest.mark.slow
def test_labels_stay_with_their_images() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    label = dict(
        zip(rows(torch.tensor(bunch.images, dtype=torch.uint8)), bunch.target, strict=True)
    )
    digits = load(split_seed=3, fraction=0.5)
    for part in (digits.train, digits.validation, digits.test):
        assert [label[row] for row in rows(part.x)] == part.y.tolist()


def test_split_seed_draws_the_validation_examples_and_leaves_the_test_set() -> None:
    one, again, other = load(split_seed=1), load(split_seed=1, root="/x"), load(split_seed=2)
    assert torch.equal(one.validation.x, again.validation.x)
    assert torch.equal(one.train.x, again.train.x)
    assert set(rows(one.validation.x)) != set(rows(other.validation.x))
    assert torch.equal(one.test.x, other.test.x)


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({"validation": 200}, (1148, 200)),
        ({"validation": 0.25}, (1011, 337)),
        ({"fraction": 0.5}, (607, 67)),
        ({"fraction": 0.5, "validation": 100}, (574, 100)),
        ({"fraction": 0.001, "validation": 1}, (1, 1)),
        ({"validation": 0}, (1348, 0)),
        ({"fraction": 0.5, "validation": 0}, (674, 0)),
    ],
)
def test_validation_is_a_count_or_a_share_of_the_subsample(
    fields: dict[str, float], sizes: tuple[int, int]
) -> None:
    digits = load(**fields)
    assert (len(digits.train), len(digits.validation)) == sizes
    assert data.outline(DataSpec(**fields))[0] == sizes[0]
    assert set(rows(digits.train.x)) | set(rows(digits.validation.x)) <= set(
        rows(load().train.x) + rows(load().validation.x)
    )


@pytest.mark.parametrize("measure", [data.outline, lambda spec: data.load(spec, CPU)])
def test_validation_must_leave_training_examples(measure: object) -> None:
    with pytest.raises(SpecError, match=r"^data\.validation: must leave .* 1348 .* 1348\.0"):
        measure(DataSpec(validation=1348))  # type: ignore[operator]


def test_digits_are_normalized_to_their_own_mean_and_deviation() -> None:
    digits = load()
    every = torch.cat([digits.train.x, digits.validation.x, digits.test.x])
    x = digits.normalize(every)
    assert x.dtype == torch.float32
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_mean_and_deviation_are_per_channel_with_constant_channels_left_alone() -> None:
    x = torch.randint(
        0, 256, (9000, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    x[:, 2] = 7
    mean, std = example_mean_std(x)
    flat = x.double().transpose(0, 1).reshape(3, -1)
    assert mean.shape == std.shape == (3, 1, 1)
    assert mean.flatten().tolist() == pytest.approx(flat.mean(1).tolist())
    assert std.flatten().tolist() == pytest.approx([*flat.std(1, correction=0).tolist()[:2], 1.0])


@pytest.mark.slow
def test_user_dataset_is_split_and_pinned_by_its_content() -> None:
    spec = resolve(TicketSpec(data=DataSpec(name="toys:colours", validation=10))).data
    dataset = data.load(spec, CPU)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (40, 10, 20)
    assert torch.equal(dataset.mean, colours(spec).mean)
    assert spec.fingerprint == data.fingerprint(spec) != ""


def test_data_other_than_pinned_are_refused() -> None:
    with pytest.raises(DataError, match=r"toys:colours must have fingerprint 0+,"):
        load(name="toys:colours", fingerprint="0" * 64)


def test_content_decides_the_fingerprint() -> None:
    one = colours(DataSpec())
    other = replace(one, train=one.train.at(torch.arange(49)))
    moved = replace(one, mean=one.mean + 1)
    assert len({data.content_fingerprint(d) for d in (one, other, moved)}) == 3
    assert data.content_fingerprint(one) == data.content_fingerprint(colours(DataSpec()))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"name": "mnst"},
            SpecError,
            r"^data\.name: is not a known dataset, .*'mnst'; known: digits, mn",
        ),
        ({"name": "nowhere:at_all"}, SpecError, r"^data\.name: cannot be imported"),
        ({"name": "toys:absent"}, SpecError, r"^data\.name: is not a callable of toys.*colours"),
        (
            {"name": "toys:not_a_dataset"},
            DataError,
            "must return lth_core.data.Dataset, but got int",
        ),
        ({"name": "toys:features", "augment": "flip"}, SpecError, r"^data\.augment: needs images"),
        (
            {"name": "mnist1d", "normalize": "per_image"},
            SpecError,
            r"^data\.normalize: needs images, .* 'dataset', but got 'per_image'",
        ),
    ],
)
def test_data_that_cannot_be_had_are_refused_with_what_is_known(
    fields: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(**fields)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "svhn", "cifar10", "cifar100"])
def test_absent_data_are_refused_before_a_slow_import_naming_the_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # importing it is an error
    with pytest.raises(DataError, match=f"{tmp_path}/nothing.*data.root=FOLDER.*--download"):
        load(name=name, root=str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_plan_needs_no_data(tmp_path: Path) -> None:
    spec = TicketSpec(data=DataSpec(name="mnist", root=str(tmp_path), validation=5000))
    assert data.outline(spec.data)[0] == 55_000
    assert (
        resolve(replace(spec, rewind="1ep", train=replace(spec.train, steps="2ep"))).rewind
        == "917it"
    )


@pytest.mark.data
@pytest.mark.skipif(
    not (DATA / "MNIST").is_dir(), reason=f"no MNIST folder in {DATA}; set LTH_DATA"
)
def test_mnist_is_whole_and_normalized() -> None:
    mnist = load(name="mnist", root=str(DATA), validation=5000)
    assert [len(p) for p in (mnist.train, mnist.validation, mnist.test)] == [55_000, 5_000, 10_000]
    assert mnist.shape == (1, 28, 28)
    assert torch.bincount(mnist.test.y).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    x = mnist.normalize(mnist.train.x)
    assert x.mean().item() == pytest.approx(0, abs=0.01)
    assert x.std().item() == pytest.approx(1, abs=0.01)
