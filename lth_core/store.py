"""The store remembers: content-addressed results in a folder, or in memory.

An entry is ``<kind>/<digest>/entry.json`` beside its blobs. The blobs are written first, under
names that carry their content's digest; entry.json, which names them and checks itself, comes
last and whole. So an entry is there or it is not, two writers of one entry cannot tear it, and
writing it twice changes nothing. Only JSON and safetensors are ever read back.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lth_core.errors import CorruptEntryError, SpecError, StoreError
from lth_core.spec import canonical_json

MANIFEST = "entry.json"


class Files(Protocol):
    """The few things a store needs of a place that keeps files; paths are ``a/b/c``."""

    def read(self, path: str) -> bytes | None:
        """The whole file, or None where there is none."""

    def write(self, path: str, content: bytes) -> None:
        """Write the whole file or nothing, replacing what was there."""

    def folders(self, path: str) -> Iterator[str]:
        """Names of the folders in a folder."""

    def size(self, path: str) -> int | None:
        """Bytes in a file, or None where there is none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """meta: what the entry says; blob(name): the bytes it keeps beside that."""

    meta: dict[str, Any]
    blobs: dict[str, dict[str, Any]]
    _files: Files
    _folder: str

    def blob(self, name: str) -> bytes:
        """A blob, checked against its digest.

        Raises:
            CorruptEntryError: it is missing or altered.
        """
        path = f"{self._folder}/{self.blobs[name]['file']}"
        content = self._files.read(path)
        if content is None or hashlib.sha256(content).hexdigest() != self.blobs[name]["sha256"]:
            raise CorruptEntryError(f"{path}: does not match its checksum")
        return content


class Store:
    """Entries by (kind, digest)."""

    def __init__(self, files: Files | None = None) -> None:
        """Keep entries in ``files``, by default in this process's memory."""
        self._files = files or MemoryFiles()

    def put(
        self,
        kind: str,
        digest: str,
        meta: Mapping[str, Any],
        blobs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write an entry, replacing one that is there.

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
            self._files.write(f"{folder}/{listed[name]['file']}", content)
        said = canonical_json({"meta": dict(meta), "blobs": listed})
        check = hashlib.sha256(said.encode()).hexdigest()
        self._files.write(f"{folder}/{MANIFEST}", f'{{"entry":{said},"sha256":"{check}"}}'.encode())

    def get(self, kind: str, digest: str) -> Entry | None:
        """The entry, or None where it is missing.

        Raises:
            CorruptEntryError: entry.json is torn or altered, or a blob is missing or cut short.
        """
        folder = f"{kind}/{digest}"
        content = self._files.read(f"{folder}/{MANIFEST}")
        if content is None:
            return None
        try:
            whole = json.loads(content)
            said, check = whole["entry"], whole["sha256"]
            sound = hashlib.sha256(canonical_json(said).encode()).hexdigest() == check
            entry = Entry(said["meta"], said["blobs"], self._files, folder)
            sizes = {blob["file"]: blob["size"] for blob in entry.blobs.values()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            sound, sizes = False, {}
        if not sound:
            raise CorruptEntryError(f"{folder}/{MANIFEST}: is torn or altered")
        for file, size in sizes.items():
            if self._files.size(f"{folder}/{file}") != size:
                raise CorruptEntryError(f"{folder}/{file}: must have {size} bytes")
        return entry

    def has(self, kind: str, digest: str) -> bool:
        """Whether a sound entry is there."""
        try:
            return self.get(kind, digest) is not None
        except CorruptEntryError:
            return False

    def digests(self, kind: str) -> list[str]:
        """Digests of a kind's entries, sorted."""
        return sorted(self._files.folders(kind))


class MemoryFiles:
    """Files in this process's memory."""

    def __init__(self) -> None:
        self._content: dict[str, bytes] = {}

    def read(self, path: str) -> bytes | None:
        return self._content.get(path)

    def write(self, path: str, content: bytes) -> None:
        self._content[path] = content

    def folders(self, path: str) -> Iterator[str]:
        start = f"{path}/"
        # A list first: another thread may be writing.
        inside = (key[len(start) :] for key in list(self._content) if key.startswith(start))
        yield from {rest.partition("/")[0] for rest in inside if "/" in rest}

    def size(self, path: str) -> int | None:
        return len(self._content[path]) if path in self._content else None


class FolderFiles:
    """Files below a folder, local or NFS."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser().absolute()

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"store {self.root}: cannot read {path} ({error.strerror})") from None

    def write(self, path: str, content: bytes) -> None:
        target = self.root / path
        scratch = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        except OSError as error:
            with suppress(OSError):  # the first error is the one to tell
                scratch.unlink()
            free = ""
            if error.errno == errno.ENOSPC:
                free = f"; {shutil.disk_usage(self.root).free} bytes are free"
            raise StoreError(
                f"store {self.root}: cannot write {path} ({error.strerror}{free})"
            ) from None

    def folders(self, path: str) -> Iterator[str]:
        try:
            yield from (e.name for e in os.scandir(self.root / path) if e.is_dir())
        except FileNotFoundError:
            return

    def size(self, path: str) -> int | None:
        try:
            return (self.root / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None


def open_store(where: str | None) -> Store:
    """The store at a place: a folder, or None for memory.

    Raises:
        SpecError: another kind of place.
        StoreError: the folder cannot be made or written to.
    """
    if where is None:
        return Store()
    if "://" in where:
        raise SpecError("store", "must be a folder", where)
    files = FolderFiles(where)
    try:
        files.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"store: {files.root} cannot be made ({error.strerror})") from None
    if not os.access(files.root, os.W_OK):
        raise StoreError(f"store: {files.root} cannot be written to (no permission)")
    return Store(files)
