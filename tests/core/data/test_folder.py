import os
import shutil
import time
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from lth_core import ModelSpec, TicketSpec, Trainer, TrainSpec, data, find_tickets
from lth_core.data import Dataset, images
from lth_core.data.images import Pixels
from lth_core.errors import DataError, LthError, SpecError
from lth_core.resolve import resolve
from lth_core.spec import DataSpec, describe
from lth_core.spec.data import Alpha

module: Any = import_module("lth_core.data.folder")
"""`lth_core.data.folder` is the function of that name."""


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


def test_images_that_change_are_trained_on_in_the_same_process(folder: Path) -> None:
    train = TrainSpec(steps=2, batch_size=2)
    source = DataSpec(name=f"folder:{folder}", validation=0)
    spec = TicketSpec(data=source, model=ModelSpec(widths=(4,)), train=train, levels=0)
    trainer, found = Trainer(device="cpu"), list[str]()
    for number in (0, 7):
        picture(folder / "train" / "cat" / "a.png", number)
        (level,) = find_tickets(spec, trainer)
        assert level.spec.data.fingerprint == fingerprint(folder)
        assert not level.records[0]["reused"]
        found.append(level.records[0]["training_digest"])
    assert found[0] != found[1]


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


def record(folder: Path) -> dict[str, object]:
    """The record of a short training on the folder."""
    spec = TicketSpec(
        data=DataSpec(name=f"folder:{folder}", validation=2), train=TrainSpec(steps=2), levels=0
    )
    return next(find_tickets(spec)).records[0]


def test_search_on_a_folder_has_one_digest_wherever_the_folder_lies(folder: Path) -> None:
    here = record(folder)
    there = record(folder.rename(folder.with_name("animals")))
    for column in ("spec_digest", "training_digest", "final_test_accuracy"):
        assert here[column] == there[column]


def test_same_names_sizes_and_times_with_other_pixels_are_other_data(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "others"
    shutil.copytree(folder, other)  # with its times
    before = fingerprint(folder)
    for image in other.rglob("*.png"):
        replace_in_place(image)
    assert fingerprint(other) != before
    assert fingerprint(folder) == before


def replace_in_place(image: Path) -> None:
    """Change pixels, keeping the inode, the size and the time of modification."""
    status, sound = image.stat(), image.read_bytes()
    for number in count(1000):
        picture(image, number)
        if image.read_bytes() != sound and image.stat().st_size == status.st_size:
            break
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (image.stat().st_ino, image.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_file_replaced_in_place_is_noticed_at_once(folder: Path) -> None:
    for image in sorted(folder.rglob("*.png")):
        before = fingerprint(folder)
        replace_in_place(image)
        assert fingerprint(folder) != before


def test_listing_of_young_files_is_not_cached(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, listings in ((3600.0, 0), (0.0, 1)):
        monkeypatch.setattr(module, "SETTLED", age)
        time.sleep(0.05)
        fingerprint(folder)
        assert len(list((tmp_path / "cache").glob("*.json"))) == listings


def test_file_replaced_in_place_is_noticed_by_its_time_of_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED", 0)
    image = folder / "train" / "dog" / "e.png"
    time.sleep(0.05)  # longer than a tick of the file system's clock
    before = fingerprint(folder)
    time.sleep(0.05)
    replace_in_place(image)
    assert fingerprint(folder) != before


def test_copies_of_a_folder_share_a_cache_file(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(folder)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    assert fingerprint(tmp_path / "copy") == before
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Contents of the files decoded in the test."""
    contents = list[bytes]()

    def decode(content: bytes, alpha: Alpha) -> Pixels:
        contents.append(content)
        return images.decode(content, alpha)

    monkeypatch.setattr(module, "decode", decode)
    return contents


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forgets what the process knows, as a new process does; files count as old."""
    monkeypatch.setattr(module, "SETTLED", 0)

    def forget() -> None:
        data._read.cache_clear()
        module._known.clear()

    return forget


def damage(file: Path, byte: int) -> None:
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE = {
    "cut": cut,
    "one pixel": lambda file: damage(file, -3),
    "one letter": lambda file: damage(file, 15),
    "empty": lambda file: file.write_bytes(b""),
    "other JSON": lambda file: file.write_text('[{"content": 3}]'),
    "folder": replace_by_folder,
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.slow
def test_damaged_cache_costs_time_not_a_result(
    kind: str, folder: Path, tmp_path: Path, decoded: list[bytes], forget: Callable[[], None]
) -> None:
    time.sleep(0.05)
    before = fingerprint(folder)
    assert len(decoded) == 8
    forget()
    assert fingerprint(folder) == before
    assert len(decoded) == 8
    for ending, again in (("json", 8), ("safetensors", 16)):
        (file,) = (tmp_path / "cache").glob(f"*.{ending}")
        sound = file.read_bytes()
        DAMAGE[kind](file)
        forget()
        assert fingerprint(folder) == before
        assert len(decoded) == again
        assert file.is_dir() or file.read_bytes() == sound


def test_cache_file_under_another_digest_is_not_used(
    folder: Path, tmp_path: Path, forget: Callable[[], None]
) -> None:
    before = fingerprint(folder)
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    replace_in_place(folder / "train" / "cat" / "a.png")
    after = fingerprint(folder)
    (changed,) = set((tmp_path / "cache").glob("*.safetensors")) - {file}
    shutil.copyfile(file, changed)
    forget()
    assert fingerprint(folder) == after != before


@pytest.mark.parametrize("place", ["/dev/null/cache", "~nobody-of-this-name/cache"])
def test_cache_that_cannot_be_written_costs_time_not_a_result(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(folder)
    data._read.cache_clear()
    monkeypatch.setenv("LTH_CACHE", place)
    assert fingerprint(folder) == before


def test_grey_images_have_one_channel(folder: Path) -> None:
    for number, image in enumerate(folder.rglob("*.png")):
        picture(image, number, (6, 5))
    assert load(folder).shape == (1, 6, 5)


def test_a_grey_image_among_colour_ones_is_colour(folder: Path) -> None:
    grey = np.arange(30, dtype=np.uint8).reshape(6, 5)
    for part in ("train/cat/a.png", "test/dog/b.png"):
        Image.fromarray(grey).save(folder / part)
    dataset = load(folder)
    assert dataset.shape == (3, 6, 5)
    assert torch.equal(dataset.test.x[1], torch.from_numpy(grey).expand(3, 6, 5))


def test_one_colour_image_of_the_test_part_makes_all_colour(folder: Path) -> None:
    for number, image in enumerate(folder.rglob("*.png")):
        picture(image, number, (6, 5))
    picture(folder / "test" / "dog" / "b.png", 7, (6, 5, 3))
    assert load(folder).shape == (3, 6, 5)


def test_images_at_16_bits_are_those_at_8_bits(folder: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    for number, image in enumerate(sorted(folder.rglob("*.png"))):
        picture(image, number, (6, 5))
        pixels = np.asarray(Image.open(image)).astype(np.uint16)
        (deep / image.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels * 256 + 77).save(deep / image.relative_to(folder))
    one, other = load(folder), load(deep)
    assert torch.equal(one.train.x, other.train.x)
    assert torch.equal(one.test.x, other.test.x)
    assert torch.equal(one.mean, other.mean)
    shallow_record, deep_record = record(folder), record(deep)
    for column in ("spec_digest", "training_digest", "final_test_accuracy"):
        assert shallow_record[column] == deep_record[column]


@pytest.mark.slow
def test_float_images_among_others_are_of_their_range(folder: Path) -> None:
    for number, image in enumerate(sorted(folder.rglob("*.png"))):
        picture(image, number, (6, 5))
    before = load(folder)
    image = folder / "test" / "cat" / "a.png"
    pixels = np.asarray(Image.open(image))
    image.unlink()
    Image.fromarray((pixels / 255).astype(np.float32)).save(image.with_suffix(".tiff"))
    after = load(folder)
    assert after.train.x.dtype == after.test.x.dtype == torch.float32
    torch.testing.assert_close(after.test.x, before.test.x.float())
    assert torch.equal(after.mean, before.mean)


def test_alpha_is_composited_on_the_fields_colour(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED", 0)  # so that listings are cached
    transparent = np.zeros((6, 5, 4), np.uint8)
    transparent[0] = 200, 100, 50, 255
    for image in folder.rglob("*.png"):
        Image.fromarray(transparent).save(image)
    time.sleep(0.05)
    black, white = (
        data.load(DataSpec(name=f"folder:{folder}", validation=2, alpha=alpha), torch.device("cpu"))
        for alpha in ("black", "white")
    )
    for dataset, behind in ((black, 0), (white, 255)):
        assert dataset.test.x[0, :, 0, 0].tolist() == [200, 100, 50]
        assert bool((dataset.test.x[0, :, 1:] == behind).all())


def test_images_that_vanish_before_their_background_are_refused(folder: Path) -> None:
    drawing = np.zeros((6, 5, 4), np.uint8)
    drawing[2, :, 3] = 255  # black lines on nothing
    for image in folder.rglob("*.png"):
        Image.fromarray(drawing).save(image)
    with pytest.raises(DataError, match=r"train: every pixel of every image is 0; .* data\.alpha"):
        load(folder)
    spec = DataSpec(name=f"folder:{folder}", validation=2, alpha="white")
    assert data.load(spec, torch.device("cpu")).train.x.unique().tolist() == [0, 255]


@pytest.mark.parametrize("name", ["digits", "toys:colours"])
def test_alpha_of_other_data_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"^data\.alpha: applies to folder:PATH alone"):
        data.outline(DataSpec(name=name, alpha="white"))


def test_digest_without_alpha_is_as_before_the_field() -> None:
    assert "alpha" not in describe(DataSpec())
    assert describe(DataSpec(alpha="white"))["alpha"] == "white"


def test_hidden_files_and_folders_are_neither_classes_nor_images(folder: Path) -> None:
    before = fingerprint(folder)
    picture(folder / "train" / ".ipynb_checkpoints" / "a-checkpoint.png", 0)
    picture(folder / "train" / "__MACOSX" / "a.png", 0)
    picture(folder / "train" / "cat" / ".ipynb_checkpoints" / "a-checkpoint.png", 0)
    picture(folder / "train" / "cat" / "@eaDir" / "a.png" / "thumb.jpg", 0)
    for name in ("cat/._a.png", "cat/.DS_Store", ".DS_Store", "cat/Thumbs.db", "._cat.png"):
        (folder / "train" / name).write_bytes(b"\0\5\x16\7")
    (folder / "train" / "cat" / ".gone.png").symlink_to("nowhere")
    (folder / "train" / "cat" / "notes.txt").write_text("words")
    assert fingerprint(folder) == before


def test_images_in_folders_of_a_class_are_read_in_the_order_of_their_paths(folder: Path) -> None:
    flat = fingerprint(folder)
    (folder / "train" / "cat" / "b").mkdir()
    (folder / "train" / "cat" / "b.png").rename(folder / "train" / "cat" / "b" / "1.png")
    assert fingerprint(folder) == flat
    picture(folder / "train" / "cat" / "b" / "deep" / "2.png", 9)
    dataset = load(folder)
    assert len(dataset.train) + len(dataset.validation) == 7
    assert torch.cat([dataset.train.y, dataset.validation.y]).bincount().tolist() == [5, 2]


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_validation_folder_is_the_validation_part(name: str, folder: Path) -> None:
    before = fingerprint(folder)
    picture(folder / name / "dog" / "z.png", 300)
    assert fingerprint(folder) != before
    dataset = load(folder)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (6, 1, 2)
    expected = np.random.default_rng(300).integers(0, 256, (6, 5, 3), np.uint8)
    assert np.array_equal(dataset.validation.x[0].permute(1, 2, 0).numpy(), expected)
    assert dataset.validation.y.tolist() == [1]
    assert data.outline(DataSpec(name=f"folder:{folder}", validation=2))[0] == 6


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
    with pytest.raises(DataError, match=r"bird/a.png: is of class 'bird', which train/ lacks"):
        fingerprint(folder)


def test_folder_without_images_is_refused(folder: Path) -> None:
    for image in (folder / "test").rglob("*.png"):
        image.rename(image.with_suffix(".txt"))
    with pytest.raises(
        DataError, match=rf"{folder}/test: no images in class folders; known.*\.png"
    ):
        fingerprint(folder)


def dangling(folder: Path) -> Path:
    path = folder / "train" / "cat" / "z.png"
    path.symlink_to(folder / "nowhere.png")
    return path


def dangling_class(folder: Path) -> Path:
    path = folder / "train" / "bird"
    path.symlink_to(folder / "nowhere")
    return path


def circular(folder: Path) -> Path:
    path = folder / "train" / "cat" / "again"
    path.symlink_to(folder / "train")
    return path


def folder_named_as_image(folder: Path) -> Path:
    path = folder / "test" / "cat" / "x.png"
    path.mkdir()
    return path


def fifo(folder: Path) -> Path:
    path = folder / "test" / "cat" / "x.png"
    os.mkfifo(path)
    return path


def outside_of_classes(folder: Path) -> Path:
    picture(folder / "train" / "x.png", 0)
    return folder / "train" / "x.png"


def class_without_images(folder: Path) -> Path:
    path = folder / "train" / "fish"
    path.mkdir()
    return path


def numpy_array(folder: Path) -> Path:
    path = folder / "train" / "cat" / "x.npy"
    np.save(path, np.zeros((6, 5)))
    return path


def truncated(folder: Path) -> Path:
    path = folder / "train" / "cat" / "a.png"
    path.write_bytes(path.read_bytes()[:90])
    return path


def bomb(folder: Path) -> Path:
    """A file of 2 kB that says that it has ten thousand million pixels."""
    path = folder / "train" / "cat" / "a.png"
    content = bytearray(path.read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    content[29:33] = crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def capital(folder: Path) -> Path:
    picture(folder / "Valid" / "cat" / "a.png", 0)
    return folder / "Valid"


def two_validations(folder: Path) -> Path:
    picture(folder / "val" / "dog" / "z.png", 0)
    picture(folder / "validation" / "dog" / "z.png", 0)
    return folder


def unknown_validation_class(folder: Path) -> Path:
    picture(folder / "val" / "bird" / "z.png", 0)
    return folder / "val" / "bird" / "z.png"


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (dangling, "is a link to .*nowhere.png, which does not exist"),
        (dangling_class, "is a link to .*nowhere, which does not exist"),
        (circular, "is a link to a folder that contains it"),
        (folder_named_as_image, "is a folder, but has the name of an image"),
        (fifo, "is not a regular file"),
        (outside_of_classes, "must lie in the folder of its class"),
        (class_without_images, "is a class folder without images; known endings: .*png"),
        (numpy_array, "files of this kind are not read; known endings: .*png"),
        (truncated, "is not a readable image"),
        (bomb, "is not a readable image .*decompression bomb"),
        (capital, "must be named valid"),
        (two_validations, "must have one folder of validation images, but has validation, val"),
        (unknown_validation_class, "is of class 'bird', which train/ lacks"),
    ],
)
def test_folder_with_an_odd_file_gets_one_line_at_plan(
    spoil: Callable[[Path], Path], rule: str, folder: Path
) -> None:
    path = spoil(folder)
    with pytest.raises(LthError, match=rf"^{path}: {rule}") as raised:
        resolve(TicketSpec(data=DataSpec(name=f"folder:{folder}", validation=2)))
    assert "\n" not in str(raised.value)
