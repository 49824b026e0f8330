"""``folder:PATH``: images in class folders, decoded once and cached by content."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lth_core.data.dataset import Dataset, Split, example_mean_std, raw
from lth_core.errors import DataError
from lth_core.spec import DataSpec
from lth_core.store.folder import write_whole

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


def folder(spec: DataSpec) -> Dataset:
    """Images in ROOT/train/CLASS/* and ROOT/test/CLASS/*; as uint8, classes in sorted order.

    All images must share one size. Decoded images are stored in the cache folder
    (``LTH_CACHE``, by default ``~/.cache/lth``) under the digest of the file listing: names,
    sizes and times of change.

    Raises:
        DataError: a folder is missing or empty, or an image is broken or of another size.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    root = Path(spec.root)
    files = _files(root)
    classes = sorted({name for name, _ in files["train"]})
    unknown = {name for name, _ in files["test"]} - set(classes)
    if unknown:
        raise DataError(f"{root / 'test'}: has classes that train/ lacks: {sorted(unknown)}")
    cache = _cache_folder() / f"{listing_digest(spec)}.safetensors"
    try:
        tensors = load_file(cache)
    except (OSError, SafetensorError):
        tensors = {
            f"{part}_{axis}": tensor
            for part, listing in files.items()
            for axis, tensor in zip("xy", _decode(listing, classes), strict=True)
        }
        _write_cache(cache, tensors)
    train, test = (Split(tensors[f"{part}_x"], tensors[f"{part}_y"]) for part in ("train", "test"))
    if train.x.shape[1:] != test.x.shape[1:]:
        raise DataError(f"{root}: test images are {tuple(test.x.shape[1:])}, train images "
                        f"{tuple(train.x.shape[1:])}; all must share one size")  # fmt: skip
    return raw(train, test, *example_mean_std(train.x), len(classes))


def _files(root: Path) -> dict[str, list[tuple[str, Path]]]:
    """(class name, path) of each image, for train and test."""
    return {part: _listing(root, part) for part in ("train", "test")}


def _listing(root: Path, part: str) -> list[tuple[str, Path]]:
    folder = root / part
    if not folder.is_dir():
        raise DataError(f"data.name: folder:{root} must have {part}/CLASS/*, but "
                        f"{folder.absolute()} is not a folder")  # fmt: skip
    images = [
        (entry.name, Path(file.path))
        for entry in sorted(os.scandir(folder), key=lambda e: e.name)
        if entry.is_dir()
        for file in sorted(os.scandir(entry.path), key=lambda e: e.name)
        if Path(file.name).suffix.lower() in SUFFIXES
    ]
    if not images:
        raise DataError(f"{folder.absolute()}: no images in class folders; known endings: "
                        f"{', '.join(sorted(SUFFIXES))}")  # fmt: skip
    return images


def listing_digest(spec: DataSpec) -> str:
    """Digest of the names, sizes and times of change of a folder's images."""
    root = Path(spec.root)
    files = _files(root)
    digest = hashlib.sha256()
    for listing in files.values():
        for _, path in listing:
            stat = path.stat()
            line = f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
            digest.update(line.encode())
    return digest.hexdigest()


def _decode(listing: list[tuple[str, Path]], classes: list[str]) -> tuple[Tensor, Tensor]:
    """Images (n, channels, height, width) uint8, and their classes (n,) int64."""
    from PIL import Image, UnidentifiedImageError

    class_of = {name: number for number, name in enumerate(classes)}
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None = None
    for index, (_, path) in enumerate(listing):
        try:
            with Image.open(path) as image:
                grey = image.mode in ("L", "1", "I;16")
                array = np.asarray(image.convert("L" if grey else "RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{path}: is not a readable image ({error})") from None
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if pixels is None:
            pixels = np.empty((len(listing), *array.shape), np.uint8)
        if array.shape != pixels.shape[1:]:
            raise DataError(f"{path}: is {array.shape} (channels, height, width), the first image "
                            f"{pixels.shape[1:]}; all must share one size")  # fmt: skip
        pixels[index] = array
    assert pixels is not None
    return torch.from_numpy(pixels), torch.tensor([class_of[name] for name, _ in listing])


def _cache_folder() -> Path:
    return Path(os.environ.get("LTH_CACHE", "~/.cache/lth")).expanduser()


def _write_cache(cache: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    with suppress(OSError):  # a cache that cannot be written costs time, not results
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, save(tensors))
