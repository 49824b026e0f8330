import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lth_core import TicketSpec, TrainSpec, data, find_tickets
from lth_core.data import Dataset
from lth_core.errors import DataError
from lth_core.spec import DataSpec


def picture(path: Path, number: int, shape: tuple[int, ...] = (6, 5, 3)) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, 4 + 2 training and 1 + 1 test images; a cache of its own."""
    monkeypatch.setenv("LTH_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(("cat/a", "cat/b", "cat/c", "cat/d", "dog/e", "dog/f")):
        picture(tmp_path / "pets" / "train" / f"{name}.png", number)
    for number, name in enumerate(("cat/a", "dog/b"), start=100):
        picture(tmp_path / "pets" / "test" / f"{name}.png", number)
    return tmp_path / "pets"


def load(folder: Path) -> Dataset:
    return data.load(DataSpec(name=f"folder:{folder}", validation=2), torch.device("cpu"))


def fingerprint(folder: Path) -> str:
    return data.fingerprint(DataSpec(name=f"folder:{folder}"))


def test_folder_gives_pixels_classes_and_normalization(folder: Path) -> None:
    dataset = load(folder)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (4, 2, 2)
    assert (dataset.shape, dataset.classes) == ((3, 6, 5), 2)
    expected = np.random.default_rng(101).integers(0, 256, (6, 5, 3), np.uint8)
    assert np.array_equal(dataset.test.x[1].permute(1, 2, 0).numpy(), expected)
    assert dataset.test.y.tolist() == [0, 1]
    assert sorted(torch.cat([dataset.train.y, dataset.validation.y]).tolist()) == [0, 0, 0, 0, 1, 1]
    x = dataset.normalize(torch.cat([dataset.train.x, dataset.validation.x]))
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert x.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_changed_content_has_another_fingerprint_though_size_and_names_stay(folder: Path) -> None:
    before = fingerprint(folder)
    changed = folder / "train" / "cat" / "a.png"
    stamp = changed.stat().st_mtime_ns
    picture(changed, 50)
    os.utime(changed, ns=(stamp + 1_000_000, stamp + 1_000_000))
    assert fingerprint(folder) != before
    picture(changed, 0)
    assert fingerprint(folder) == before


def test_fingerprint_is_of_the_content_not_the_place(folder: Path) -> None:
    before = fingerprint(folder)
    assert fingerprint(folder.rename(folder.with_name("animals"))) == before


def test_search_on_a_folder_has_one_digest_wherever_the_folder_lies(folder: Path) -> None:
    def search(place: Path) -> list[dict[str, object]]:
        spec = TicketSpec(
            data=DataSpec(name=f"folder:{place}", validation=2), train=TrainSpec(steps=2), levels=0
        )
        return next(find_tickets(spec)).records()

    here = search(folder)
    there = search(folder.rename(folder.with_name("animals")))
    for column in ("spec_digest", "training_digest", "final_test_accuracy"):
        assert here[0][column] == there[0][column]


def test_decoded_images_are_cached_and_a_torn_cache_is_made_again(
    folder: Path, tmp_path: Path
) -> None:
    before = fingerprint(folder)
    (cache,) = (tmp_path / "cache").iterdir()
    decoded = cache.read_bytes()
    cache.write_bytes(decoded[:-5])
    data._read.cache_clear()  # as in a new process
    assert fingerprint(folder) == before
    assert cache.read_bytes() == decoded
    for image in folder.rglob("*.png"):  # whoever reads the cache does not decode
        stat = image.stat()
        image.write_bytes(b"x" * stat.st_size)
        os.utime(image, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert fingerprint(folder) == before


def test_grey_images_have_one_channel(folder: Path) -> None:
    for number, image in enumerate(folder.rglob("*.png")):
        picture(image, number, (6, 5))
    assert load(folder).shape == (1, 6, 5)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}/nothing/train is not a folder"):
        fingerprint(tmp_path / "nothing")


def test_broken_folders_are_refused_naming_the_file(folder: Path) -> None:
    broken = folder / "train" / "cat" / "a.png"
    sound = broken.read_bytes()
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"{broken}: is not a readable image"):
        fingerprint(folder)
    picture(broken, 0, (7, 5, 3))
    with pytest.raises(DataError, match="all must share one size"):
        fingerprint(folder)
    broken.write_bytes(sound)
    picture(folder / "test" / "bird" / "a.png", 0)
    with pytest.raises(DataError, match=r"classes that train/ lacks: \['bird'\]"):
        fingerprint(folder)


def test_folder_without_images_is_refused(folder: Path) -> None:
    for image in (folder / "test").rglob("*.png"):
        image.rename(image.with_suffix(".txt"))
    with pytest.raises(
        DataError, match=rf"{folder}/test: no images in class folders; known.*\.png"
    ):
        fingerprint(folder)
