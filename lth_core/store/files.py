"""Storage of files: the protocol `Files`, and its simplest implementation, in memory.

The others are a folder, local or NFS (folder.py), and S3 (s3.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lth_core.errors import StoreError

FILE, LINK, DEVICE, UNREADABLE = "file", "symbolic link", "device", "unreadable folder"
"""Types of directory entries."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file, as a storage lists it."""

    path: str
    """In the store."""
    size: int
    """In bytes."""
    modified: float
    """Unix time of the last write, by the storage's clock."""
    type: str = FILE
    """Anything but a regular file is never read, followed or deleted."""


class Files(Protocol):
    """Operations that a store needs of its storage; paths are ``a/b/c``.

    Each raises StoreError where the storage cannot be reached or refuses, and for a path that leads
    out of it. Symbolic links below the root are not followed.
    """

    exclusive: bool
    """Whether exactly one of several processes that create a file at once succeeds."""

    def read(self, path: str) -> bytes | None:
        """The content of a file; None where there is no file.

        Raises:
            UnreadableFileError: this one file cannot be read, or is no regular file.
        """

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Write the whole file or nothing, replacing an older file.

        Args:
            durable: whether the file survives a power cut.
        """

    def create(self, path: str, content: bytes) -> bool:
        """Write a file unless there is one; return whether it was written.

        If several processes try at once, one succeeds; where the storage is not `exclusive`, all
        may.
        """

    def delete(self, path: str, *others: str) -> None:
        """Remove files of one folder, and the folders that this empties.

        Only regular files are removed; a missing file is no error.
        """

    def folders(self, path: str) -> Iterator[str]:
        """Names of the folders in a folder, without those that begin with a dot."""

    def files(self, path: str) -> Iterator[StoredFile]:
        """All files below a folder, "" for the root; files written meanwhile may be among them."""

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """Bytes in each of the files, None where there is no regular file."""


def inside(path: str) -> str:
    """The path, checked to lead to a file below the root.

    Raises:
        StoreError: it leads elsewhere.
    """
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise StoreError(f"{path!r}: must lead to a file inside the store")
    return path


class MemoryFiles:
    """Files in this process's memory."""

    exclusive = True

    def __init__(self) -> None:
        self._content: dict[str, tuple[bytes, float]] = {}

    def read(self, path: str) -> bytes | None:
        return self._content.get(inside(path), (None, 0))[0]

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        self._content[inside(path)] = content, time.time()

    def create(self, path: str, content: bytes) -> bool:
        new = content, time.time()
        return self._content.setdefault(inside(path), new) is new

    def delete(self, path: str, *others: str) -> None:
        for each in (path, *others):
            self._content.pop(inside(each), None)

    def folders(self, path: str) -> Iterator[str]:
        start = len(path) + 1 if path else 0
        below = (file.path[start:] for file in self.files(path))
        names = {rest.partition("/")[0] for rest in below if "/" in rest}
        yield from (name for name in names if not name.startswith("."))

    def files(self, path: str) -> Iterator[StoredFile]:
        start = f"{inside(path)}/" if path else ""
        # Iterates over a copy: another thread may write meanwhile.
        for key, (content, modified) in self._content.copy().items():
            if key.startswith(start):
                yield StoredFile(key, len(content), modified)

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        contents = (self.read(path) for path in paths)
        return [None if content is None else len(content) for content in contents]
