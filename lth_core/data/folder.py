"""``folder:PATH``: images in class folders, decoded once and cached by content."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lth_core.data.dataset import Dataset, Split, example_mean_std, raw, tensors_digest
from lth_core.data.images import SUFFIXES, UNREAD_SUFFIXES, Pixels, decode
from lth_core.errors import DataError, exception_text
from lth_core.spec import DataSpec
from lth_core.store.folder import write_whole

PARTS = {"train": ("train",), "test": ("test",), "validation": ("validation", "valid", "val")}
"""Names of the folder of each part; only validation may be absent."""

NOT_CONTENT = {"__MACOSX", "@eaDir"}
"""Folders of previews and attributes that systems add; so are all whose names begin with a dot."""

READER = "2"
"""Version of the decoding; raised when the same files begin to give other pixels."""

SETTLED = 3.0
"""Seconds after a change of a file in which a second change may leave its times as they are."""


class ImageFile(NamedTuple):
    """An image file of a part."""

    label: str
    """Name of its class."""
    path: str
    status: os.stat_result


Listing = dict[str, list[ImageFile]]
"""Image files by part, sorted by class and path."""


def folder(spec: DataSpec, content: str) -> Dataset:
    """Images in ROOT/train/CLASS/* and ROOT/test/CLASS/*, with ROOT/validation/CLASS/* if there.

    Pixels are read by `decode`: uint8, or float32 if any image has more than 16 bits. If any image
    has colour, all have three channels. Images in folders below a class folder belong to the class.
    Hidden folders and files are ignored. Classes are numbered in sorted order. All images must
    share one size.

    Decoded images are stored in the cache folder (``LTH_CACHE``, by default ``~/.cache/lth``) under
    the digest of their content.

    Args:
        content: `content_digest` of the folder.

    Raises:
        DataError: a folder is missing or empty, or a file cannot be read as an image.
    """
    root = Path(spec.root)
    files = _files(root)
    labels = {image.label for image in files["train"]}
    classes = sorted(labels)
    for image in _all(files):
        if image.label not in labels:
            raise DataError(f"{image.path}: is of class {image.label!r}, which train/ lacks")
    tensors = _cached(content)
    if tensors is None:
        content, tensors = _decoded(spec, files, classes)
        _write_cache(content, tensors)
    parts = {part: Split(tensors[f"{part}_x"], tensors[f"{part}_y"]) for part in files}
    x = parts["train"].x
    if len(x) > 1 and bool(x.max() == x.min()):
        raise DataError(f"{root / 'train'}: every pixel of every image is {x.max():g}; if the "
                        f"images are transparent, set data.alpha")  # fmt: skip
    mean, std = example_mean_std(x)
    return raw(parts["train"], parts["test"], mean, std, len(classes), parts.get("validation"))


def content_digest(spec: DataSpec) -> str:
    """Digest of the names and bytes of a folder's images, and of how they are decoded.

    It is cached under the digest of the listing, whose time of change (ctime) no program can set.

    Raises:
        DataError: a folder is missing or empty, or a file cannot be read.
    """
    root, now = Path(spec.root), time.time()
    files = _files(root)
    listing = _listing_digest(spec, files)
    known = _known.get(listing) or _read_known(listing)
    if known is not None:
        return known
    content = _begin(spec)
    for image in _all(files):
        _add(content, root, image.path, _read(image.path))
    digest = content.hexdigest()
    if max(image.status.st_ctime for image in _all(files)) < now - SETTLED:
        _known[listing] = digest
        _write_known(listing, digest)
    return digest


_known: dict[str, str] = {}
"""Content digests by listing digest, of this process."""


def _begin(spec: DataSpec) -> hashlib._Hash:
    """sha256 of what decides the pixels beside the files."""
    return hashlib.sha256(f"{READER} {spec.alpha}\n".encode())


def _add(digest: hashlib._Hash, root: Path, path: str, content: bytes) -> None:
    name = os.fsencode(os.path.relpath(path, root))
    digest.update(b"%d %d " % (len(name), len(content)) + name)
    digest.update(content)


def _listing_digest(spec: DataSpec, files: Listing) -> str:
    digest = _begin(spec)
    for _, path, status in _all(files):
        name = os.fsencode(path)
        numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
                   status.st_ctime_ns)  # fmt: skip
        digest.update(b"%d %d %d %d %d " % numbers + b"%d " % len(name) + name)
    return digest.hexdigest()


def _all(files: Listing) -> Iterator[ImageFile]:
    for images in files.values():
        yield from images


def _files(root: Path) -> Listing:
    """The image files of each part.

    Raises:
        DataError: a part is missing, empty or there twice, or has a file that is not read.
    """
    files, known = Listing(), [name for names in PARTS.values() for name in names]
    # Where a missing part is no error, a folder named `Validation` would be ignored.
    for entry in _entries(root) if root.is_dir() else ():
        if entry.name not in known and entry.name.casefold() in known:
            raise DataError(f"{entry.path}: must be named {entry.name.casefold()}")
    for part, names in PARTS.items():
        folders = [root / name for name in names if (root / name).is_dir()]
        if len(folders) > 1:
            raise DataError(f"{root}: must have one folder of {part} images, but has "
                            f"{', '.join(folder.name for folder in folders)}")  # fmt: skip
        if folders:
            files[part] = _part(folders[0])
        elif part != "validation":
            raise DataError(f"data.name: folder:{root} must have {part}/CLASS/*, but "
                            f"{(root / part).absolute()} is not a folder")  # fmt: skip
    return files


def _part(folder: Path) -> list[ImageFile]:
    images, empty = list[ImageFile](), list[Path]()
    for entry in _entries(folder):
        path = Path(entry.path)
        if entry.is_dir():
            below = [_image(entry.name, image) for image in _images(path, (folder,))]
            images += below
            empty += [] if below else [path]
        elif path.suffix.lower() in SUFFIXES:
            raise DataError(f"{path}: must lie in the folder of its class, {folder}/CLASS/")
    if not images:
        raise DataError(f"{folder.absolute()}: no images in class folders; {_known_endings()}")
    for path in empty:
        raise DataError(f"{path}: is a class folder without images; {_known_endings()}")
    return images


def _images(folder: Path, above: tuple[Path, ...]) -> Iterator[os.DirEntry[str]]:
    """The images in a folder and in the folders below it, sorted.

    Args:
        above: the folders that contain it.
    """
    if any(os.path.samefile(folder, outer) for outer in above):
        raise DataError(f"{folder}: is a link to a folder that contains it")
    for entry in _entries(folder):
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.is_dir():
            if suffix in SUFFIXES:
                raise DataError(f"{entry.path}: is a folder, but has the name of an image")
            yield from _images(Path(entry.path), (*above, folder))
        elif suffix in UNREAD_SUFFIXES:
            raise DataError(f"{entry.path}: files of this kind are not read; {_known_endings()}")
        elif suffix in SUFFIXES:
            yield entry


def _known_endings() -> str:
    return f"known endings: {', '.join(sorted(SUFFIXES))}"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by name, without hidden ones.

    Raises:
        DataError: the folder cannot be listed, or has a link to nothing.
    """
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from None
    entries = [e for e in entries if e.name[0] != "." and e.name not in NOT_CONTENT]
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):
            target = os.readlink(entry.path)
            raise DataError(f"{entry.path}: is a link to {target}, which does not exist")
    return entries


def _image(label: str, entry: os.DirEntry[str]) -> ImageFile:
    """A regular file of a class: a FIFO would block, and a device has no end."""
    try:
        status = entry.stat()
    except OSError as error:
        raise _unreadable(entry.path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{entry.path}: is not a regular file")
    return ImageFile(label, entry.path, status)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path | str, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror})")


def _decoded(spec: DataSpec, files: Listing, classes: list[str]) -> tuple[str, dict[str, Tensor]]:
    """Content digest of the files as they were decoded, and the tensors of each part.

    PART_x: (n, channels, height, width) uint8 or float32. PART_y: (n,) int64.
    """
    digest, root = _begin(spec), Path(spec.root)
    pixels: dict[str, list[Pixels]] = {part: [] for part in files}
    first: tuple[str, tuple[int, ...]] | None = None
    for part, images in files.items():
        for image in images:
            content = _read(image.path)
            _add(digest, root, image.path, content)
            try:
                array = decode(content, spec.alpha)
            # Pillow's decoders raise anything on a damaged file, `struct.error` and IndexError
            # among it. The user needs the file's name; the reason is in the message.
            except Exception as error:  # noqa: BLE001
                reason = str(error) if type(error) is ValueError else exception_text(error)
                raise DataError(f"{image.path}: is not a readable image ({reason})") from None
            first = first or (image.path, array.shape[1:])
            if array.shape[1:] != first[1]:
                raise DataError(f"{image.path}: is {_size(array.shape[1:])}, but {first[0]} is "
                                f"{_size(first[1])}; all must share one size")  # fmt: skip
            pixels[part].append(array)
    arrays = [array for part in pixels.values() for array in part]
    channels = max(len(array) for array in arrays)
    kind = np.result_type(*{array.dtype for array in arrays})
    del arrays
    number = {name: index for index, name in enumerate(classes)}
    tensors = dict[str, Tensor]()
    for part, images in files.items():
        tensors[f"{part}_x"] = torch.from_numpy(_stacked(pixels.pop(part), channels, kind))
        tensors[f"{part}_y"] = torch.tensor([number[image.label] for image in images])
    return digest.hexdigest(), tensors


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"


def _stacked(pixels: list[Pixels], channels: int, kind: np.dtype[np.generic]) -> Pixels:
    """Images as one array (n, channels, height, width); a grey image has equal channels.

    The list is emptied meanwhile, so that all images are in memory about once.
    """
    stacked = np.empty((len(pixels), channels, *pixels[0].shape[1:]), kind)
    for index in reversed(range(len(pixels))):
        stacked[index] = pixels.pop()
    return stacked


def _cache_file(name: str) -> Path:
    """Path of a file of the cache.

    Raises:
        RuntimeError: the cache lies in the home folder of an unknown user.
    """
    return Path(os.environ.get("LTH_CACHE", "~/.cache/lth")).expanduser() / name


# A cache that cannot be read or written costs time, never a result, so every file has a checksum.


def _cached(content: str) -> dict[str, Tensor] | None:
    """Decoded images of a content digest; None unless they are cached and undamaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_cache_file(f"{content}.safetensors"), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            checksum = (file.metadata() or {}).get("sha256")
    except (OSError, RuntimeError, SafetensorError):
        return None
    return tensors if checksum == _checksum(content, tensors) else None


def _write_cache(content: str, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    _write(f"{content}.safetensors", save(tensors, {"sha256": _checksum(content, tensors)}))


def _checksum(content: str, tensors: dict[str, Tensor]) -> str:
    """sha256 of a content digest with the decoded tensors, by name."""
    names = sorted(tensors)
    values = tensors_digest(*(tensors[name] for name in names))
    return hashlib.sha256(" ".join([content, values, *names]).encode()).hexdigest()


def _read_known(listing: str) -> str | None:
    """Content digest of a listing; None unless it is cached and undamaged."""
    try:
        row = json.loads(_cache_file(f"{listing}.json").read_bytes())
        content, checksum = str(row["content"]), row["sha256"]
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return content if checksum == _pair_digest(listing, content) else None


def _write_known(listing: str, content: str) -> None:
    row = {"content": content, "sha256": _pair_digest(listing, content)}
    _write(f"{listing}.json", json.dumps(row).encode())


def _pair_digest(listing: str, content: str) -> str:
    return hashlib.sha256(f"{listing} {content}".encode()).hexdigest()


def _write(name: str, content: bytes) -> None:
    with suppress(OSError, RuntimeError):
        file = _cache_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
