"""The store remembers: content-addressed results in a folder, in S3, or in memory.

An entry is ``<kind>/<digest>/entry.json`` beside its blobs. The blobs are written first, under
names that carry their content's digest; entry.json, which says whose it is, names them and checks
itself, comes last and whole. So an entry is there or it is not, two writers of one entry cannot
tear it, writing it twice changes nothing, and one that was moved is not taken for another. Only
JSON and safetensors are ever read back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_core.arrow_files import s3_files
from lth_core.errors import CorruptEntryError, SpecError, StoreError
from lth_core.files import Files, MemoryFiles, inside
from lth_core.folder_files import FolderFiles
from lth_core.secrets import without_login
from lth_core.spec import canonical_json

MANIFEST = "entry.json"
S3 = "s3://BUCKET/PREFIX"

_FILE = re.compile(r"\w[\w.-]*")
"""A blob's name, which leads nowhere out of the entry's folder."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]+")


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
        self.files = files or MemoryFiles()

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
            self.files.write(f"{folder}/{listed[name]['file']}", content)
        said = {"name": folder, "meta": dict(meta), "blobs": listed}
        self.files.write(f"{folder}/{MANIFEST}", _manifest(said))

    def get(self, kind: str, digest: str) -> Entry | None:
        """The entry, or None where it is missing.

        Raises:
            CorruptEntryError: entry.json is torn, altered or another entry's, or a blob is missing
                or cut short.
        """
        path = f"{kind}/{digest}/{MANIFEST}"
        content, before = self.files.read(path), None
        while content is not None:
            if entry := self._entry(kind, digest, content):
                break
            if content == before:
                raise CorruptEntryError(f"{path}: is torn or altered")
            # A remote file that was replaced while it was read is torn once, not twice.
            before, content = content, self.files.read(path)
        else:
            return None
        listed = {f"{kind}/{digest}/{b['file']}": b["size"] for b in entry.blobs.values()}
        for path, there in zip(listed, self.files.sizes(list(listed)), strict=True):
            if there != listed[path]:
                raise CorruptEntryError(f"{path}: must have {listed[path]} bytes")
        return entry

    def _entry(self, kind: str, digest: str, content: bytes) -> Entry | None:
        """What a manifest says, or None where it is not sound, to the byte.

        Raises:
            CorruptEntryError: it is another entry's.
        """
        folder = f"{kind}/{digest}"
        try:
            said = json.loads(content)["entry"]
            meta, blobs = said["meta"], said["blobs"]
            name = said.get("name", folder)  # an older version says none
            named = all(
                _FILE.fullmatch(blob["file"]) and blob["size"] >= 0 and blob["sha256"]
                for blob in blobs.values()
            )
            if _manifest(said) != content or not named or not isinstance(meta, dict):
                return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if name != folder:
            raise CorruptEntryError(f"{folder}/{MANIFEST}: is that of {name}")
        return Entry(meta, blobs, self.files, folder)

    def delete(self, kind: str, digest: str) -> None:
        """Remove an entry, its manifest first: cut short, it is missing all the same."""
        self.files.delete(f"{kind}/{digest}/{MANIFEST}")
        self.files.delete(f"{kind}/{digest}")

    def has(self, kind: str, digest: str) -> bool:
        """Whether a sound entry is there."""
        try:
            return self.get(kind, digest) is not None
        except CorruptEntryError:
            return False

    def digests(self, kind: str) -> list[str]:
        """Digests of a kind's entries, sorted."""
        return sorted(self.files.folders(kind))

    def kinds(self) -> list[str]:
        """Kinds of which there are entries, sorted."""
        return sorted(self.files.folders(""))


def store_clock(store: Store) -> float:
    """Unix time by the clock of who keeps the files; other machines' clocks may go otherwise.

    Raises:
        StoreError: it cannot be written to.
    """
    # A folder for each who asks: in S3 the last file of a folder is deleted with all that is there.
    folder = f".clock/{uuid.uuid4().hex}"
    store.files.write(f"{folder}/now", b"", durable=False)
    try:
        found = next(store.files.files(folder), None)
    finally:
        store.files.delete(folder)
    if found is None:
        raise StoreError(f"store: {folder}/now was deleted as soon as it was written")
    return found.modified


def store_time(store: Store) -> float:
    """The same, or this machine's time where the store is full, or only to be read."""
    try:
        return store_clock(store)
    except StoreError:
        return time.time()


def _manifest(said: dict[str, Any]) -> bytes:
    entry = canonical_json(said)
    check = hashlib.sha256(entry.encode()).hexdigest()
    return f'{{"entry":{entry},"sha256":"{check}"}}'.encode()


def open_store(where: str | None, *, make: bool = True) -> Store:
    """The store at a place: a folder, ``s3://bucket/prefix``, or None for memory.

    Args:
        make: make the folder, and see that it can be written to; False is for who only reads: a
            folder that is not there is then an empty store, and stays away. Buckets are never made.

    Raises:
        SpecError: another kind of place, or there are keys in the address.
        StoreError: the place cannot be made, reached or written to; within 30 seconds.
    """
    if where is None:
        return Store()
    check_place(where)
    _, separator, place = where.partition("://")
    if separator:
        bucket, _, prefix = place.rstrip("/").partition("/")
        return Store(s3_files(bucket, inside(prefix) if prefix else ""))
    files = FolderFiles(where)
    if make:
        _make(files.root)
    return Store(files)


def check_place(where: str, field: str = "store") -> None:
    """Whether a store may be kept there: the address is kept, shown and put under git.

    Raises:
        SpecError: it is another kind of place, or there are keys in it.
    """
    scheme, separator, place = where.partition("://")
    bucket, known = place.partition("/")[0], ["FOLDER", S3]
    if separator and (scheme != "s3" or not bucket):
        raise SpecError(field, "must be a folder or in S3", without_login(where), known)
    if separator and not (_BUCKET.fullmatch(bucket) and set("?#").isdisjoint(place)):
        rule = (
            "must name a bucket by letters, digits, '.', '_' or '-', and hold no keys and no "
            "parameters; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
        raise SpecError(field, rule, where if set(":@?#").isdisjoint(place) else "s3://***", known)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        there = next(parent for parent in folder.parents if os.path.exists(parent))
        raise StoreError(
            f"store: {folder} cannot be made ({error.strerror}); there is {there}"
        ) from None
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StoreError(f"store: {folder} cannot be written to (no permission)")
