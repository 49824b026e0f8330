"""The store: content-addressed results in a folder, in S3, or in memory.

An entry is ``<kind>/<digest>/entry.json`` beside its blobs. The blobs are written first, under
names that carry their content's digest. The manifest entry.json is written last and whole: it
holds its own name, the blobs' names and its own checksum. So an entry is whole or missing, two
writers of one entry cannot tear it, writing it twice changes nothing, and a moved entry is
detected. Only JSON and safetensors are ever read back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_core.errors import CorruptEntryError, SpecError, StoreError, UnreadableFileError
from lth_core.redaction import without_login
from lth_core.spec import canonical_json
from lth_core.store.files import FILE, Files, MemoryFiles, StoredFile, inside
from lth_core.store.folder import FolderFiles
from lth_core.store.kinds import KINDS, is_key, kind_and_key
from lth_core.store.s3 import s3_files

MANIFEST = "entry.json"
MARKER = "lth-store.json"
"""The file in the root of a store that marks the folder as one."""
FORMAT = "lth-store/1"
S3 = "s3://BUCKET/PREFIX"

_FILE = re.compile(r"\w[\w.-]*")
"""A blob's name: a file in the entry's folder."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: JSON (``meta``) and named blobs of bytes."""

    meta: dict[str, Any]
    blobs: dict[str, dict[str, Any]]
    """``file``, ``sha256`` and ``size`` (in bytes) of each blob, by name."""
    _files: Files
    _folder: str

    def blob(self, name: str) -> bytes:
        """Content of a blob, checked against its digest.

        Raises:
            CorruptEntryError: the blob is missing or altered.
        """
        path = f"{self._folder}/{self.blobs[name]['file']}"
        content = _read(self._files, path)
        if content is None or hashlib.sha256(content).hexdigest() != self.blobs[name]["sha256"]:
            raise CorruptEntryError(f"{path}: does not match its checksum")
        return content


class Store:
    """Entries by (kind, digest)."""

    def __init__(self, files: Files | None = None) -> None:
        """Store entries in ``files``, by default in this process's memory."""
        self.files = files or MemoryFiles()

    def put(
        self,
        kind: str,
        digest: str,
        meta: Mapping[str, Any],
        blobs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write an entry, replacing an older one.

        Raises:
            StoreError: no space left, no permission, ...
        """
        folder, listed = f"{kind}/{digest}", {}
        for name, content in (blobs or {}).items():
            sha = hashlib.sha256(content).hexdigest()
            stem, _, suffix = name.partition(".")
            listed[name] = {
                "file": f"{stem}-{sha[:16]}.{suffix}",
                "sha256": sha,
                "size": len(content),
            }
            self.files.write(f"{folder}/{listed[name]['file']}", content)
        entry = {"name": folder, "meta": dict(meta), "blobs": listed}
        self.files.write(f"{folder}/{MANIFEST}", _manifest(entry))

    def get(self, kind: str, digest: str) -> Entry | None:
        """The entry, or None where it is missing.

        Raises:
            CorruptEntryError: entry.json is torn, altered, unreadable or another entry's, or a blob
                is missing or cut short.
        """
        path = f"{kind}/{digest}/{MANIFEST}"
        content, before = _read(self.files, path), None
        while content is not None:
            if entry := self._entry(kind, digest, content):
                break
            if content == before:
                raise CorruptEntryError(f"{path}: is torn or altered")
            # A remote file that was replaced while it was read is torn once, not twice.
            before, content = content, _read(self.files, path)
        else:
            return None
        expected = {f"{kind}/{digest}/{b['file']}": b["size"] for b in entry.blobs.values()}
        for path, size in zip(expected, self.files.sizes(list(expected)), strict=True):
            if size != expected[path]:
                got = "no file" if size is None else size
                raise CorruptEntryError(f"{path}: must have {expected[path]} bytes, but got {got}")
        return entry

    def _entry(self, kind: str, digest: str, content: bytes) -> Entry | None:
        """The entry of a manifest; None where a byte of the manifest is wrong.

        Raises:
            CorruptEntryError: the manifest is another entry's.
        """
        folder = f"{kind}/{digest}"
        try:
            entry = json.loads(content)["entry"]
            meta, blobs = entry["meta"], entry["blobs"]
            name = entry.get("name", folder)  # older versions stored no name
            named = all(
                _FILE.fullmatch(blob["file"]) and blob["size"] >= 0 and blob["sha256"]
                for blob in blobs.values()
            )
            if _manifest(entry) != content or not named or not isinstance(meta, dict):
                return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if name != folder:
            raise CorruptEntryError(f"{folder}/{MANIFEST}: belongs to {name}")
        return Entry(meta, blobs, self.files, folder)

    def delete(self, kind: str, digest: str) -> None:
        """Remove an entry's own files, the manifest first: if interrupted, the entry is missing."""
        folder = f"{kind}/{digest}"
        self.files.delete(f"{folder}/{MANIFEST}")
        if left := [file.path for file in self.own_files(folder)]:
            self.files.delete(*left)

    def has(self, kind: str, digest: str) -> bool:
        """Whether the store has the entry, uncorrupted."""
        try:
            return self.get(kind, digest) is not None
        except CorruptEntryError:
            return False

    def digests(self, kind: str) -> list[str]:
        """Keys of a kind's entries, sorted."""
        return sorted(name for name in self.files.folders(kind) if is_key(kind, name))

    def kinds(self) -> list[str]:
        """Kinds of which there are entries, sorted."""
        return sorted(kind for kind in self.files.folders("") if kind in KINDS)

    def own_files(self, path: str = "") -> Iterator[StoredFile]:
        """Files that a store can have written, below a kind or an entry; by default all."""
        return (file for file in self._files_below(path) if _is_own(file))

    def foreign_files(self) -> Iterator[StoredFile]:
        """Other files in the folders of the store's kinds; they are never read or deleted."""
        return (file for file in self._files_below("") if not _is_own(file))

    def _files_below(self, path: str) -> Iterator[StoredFile]:
        for folder in [path] if path else KINDS:
            yield from self.files.files(folder)


def _is_own(file: StoredFile) -> bool:
    return file.type == FILE and kind_and_key(file.path) is not None


def _read(files: Files, path: str) -> bytes | None:
    """Content of a file of an entry; None where there is no file.

    Raises:
        CorruptEntryError: this one file cannot be read.
    """
    try:
        return files.read(path)
    except UnreadableFileError as error:
        raise CorruptEntryError(str(error)) from None


def store_clock(store: Store) -> float:
    """Unix time by the clock of the store's machine; the clocks of other machines may differ.

    Raises:
        StoreError: the store cannot be written to.
    """
    # A folder for each call: in S3 the last file of a folder is deleted with the whole folder.
    folder = f".clock/{uuid.uuid4().hex}"
    store.files.write(f"{folder}/now", b"", durable=False)
    try:
        file = next(store.files.files(folder), None)
    finally:
        store.files.delete(f"{folder}/now")
    if file is None:
        raise StoreError(f"store: {folder}/now was deleted as soon as it was written")
    return file.modified


def store_time(store: Store) -> float:
    """`store_clock`, or this machine's time where the store cannot be written to."""
    try:
        return store_clock(store)
    except StoreError:
        return time.time()


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
"""Keeps the order of keys, which is that of layers, axes and columns: an entry is read as it was
put. So this is no `canonical_json`."""


def _manifest(entry: dict[str, Any]) -> bytes:
    content = _ENCODER.encode(entry)
    check = hashlib.sha256(content.encode()).hexdigest()
    return f'{{"entry":{content},"sha256":"{check}"}}'.encode()


def open_store(where: str | os.PathLike[str] | None, *, make: bool = True) -> Store:
    """The store at a place: a folder, ``s3://bucket/prefix``, or None for memory.

    Args:
        make: create a store where there is none, and check that it can be written to. False is for
            readers: a place without a store is then an empty store, and is left unchanged. Buckets
            are never created.

    Raises:
        SpecError: the place is of another kind, or its address holds keys.
        StoreError: the place cannot be created, reached or written to within 30 seconds.
    """
    if where is None:
        return Store()
    if not isinstance(where, str | os.PathLike):
        raise SpecError("store", "must be a folder, in S3, or None", where)
    files = _files_at(os.fspath(where))
    if make:
        if isinstance(files, FolderFiles):
            _check_kinds(make_folder(files.root))
        if files.read(MARKER) is None:
            files.write(MARKER, canonical_json({"format": FORMAT}).encode())
    return _guarded(files)


def existing_store(where: str, field: str = "store") -> Store:
    """The existing store at a place.

    Raises:
        SpecError: the place is of another kind, or holds no store.
        StoreError: the place cannot be reached.
    """
    files = _files_at(where)
    if not _is_store(files):
        kinds = ", ".join(sorted(KINDS))
        rule = f"must be a store: there is neither {MARKER} nor an entry of {kinds}"
        raise SpecError(field, rule, where)
    return _guarded(files)


def _files_at(where: str) -> Files:
    check_place(where)
    _, separator, place = where.partition("://")
    if not separator:
        return FolderFiles(where)
    bucket, _, prefix = place.rstrip("/").partition("/")
    return s3_files(bucket, inside(prefix) if prefix else "")


def _check_kinds(root: Path) -> None:
    """Check that the folder of each kind is a folder: entries behind a link are not listed.

    Raises:
        StoreError: one of them is a link or a file.
    """
    for folder in (root / kind for kind in KINDS):
        link = folder.is_symlink()
        if link or (folder.exists() and not folder.is_dir()):
            got = "a symbolic link; `store` itself may be one" if link else "a file"
            raise StoreError(f"store {root}: {folder.name} must be a folder, not {got}")


def _guarded(files: Files) -> Store:
    """A store that detects when its folder is gone."""
    if isinstance(files, FolderFiles) and files.read(MARKER) is not None:
        files = FolderFiles(files.root, MARKER)
    return Store(files)


def _is_store(files: Files) -> bool:
    """Whether there is a marker or an entry; older versions wrote no marker."""
    if files.read(MARKER) is not None:
        return True
    keys = ((kind, key) for kind in KINDS for key in Store(files).digests(kind))
    return any(files.sizes([f"{kind}/{key}/{MANIFEST}"]) != [None] for kind, key in keys)


def check_place(where: str, field: str = "store") -> None:
    """Check the address of a store, which is stored, shown and put under git.

    Raises:
        SpecError: the place is of another kind, or its address holds keys.
    """
    scheme, separator, place = where.partition("://")
    bucket, known = place.partition("/")[0], ["FOLDER", S3]
    shown = where if set(":@?#").isdisjoint(place) else "s3://***"
    if separator and (scheme != "s3" or not bucket):
        raise SpecError(field, "must be a folder or in S3", without_login(where), known)
    if separator and not (_BUCKET.fullmatch(bucket) and set("?#").isdisjoint(place)):
        rule = (
            "must name a bucket by letters, digits, '.', '_' or '-', and hold no keys and no "
            "parameters; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
        raise SpecError(field, rule, shown, known)
    parts = place.rstrip("/").split("/")[1:]
    if separator and not {"", ".", ".."}.isdisjoint(parts):
        raise SpecError(field, "must have no empty part and no '.' or '..'", shown, known)


def make_folder(folder: Path, holds: str = "store") -> Path:
    """A folder, created where there is none.

    Args:
        holds: what it is for, in errors.

    Raises:
        StoreError: the folder cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        existing = next(parent for parent in folder.parents if os.path.exists(parent))
        raise StoreError(
            f"{holds}: {folder} cannot be made ({error.strerror}); there is {existing}"
        ) from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StoreError(f"{holds}: {folder} cannot be written to (no permission)")
    return folder
