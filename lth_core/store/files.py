"""Places that keep files, under one protocol; the simplest is this process's memory.

The others are a folder, local or NFS (folder_files), and S3 (arrow_files).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lth_core.errors import StoreError

FILE, LINK, DEVICE, UNREADABLE = "file", "symbolic link", "device", "unreadable folder"
"""What can be found in a folder."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file: its path in the store, bytes, and when it was last written, by the place's clock."""

    path: str
    size: int
    modified: float
    """Unix time."""
    what: str = FILE
    """Anything but a regular file is never read, followed or deleted."""


class Files(Protocol):
    """The few things a store needs of a place that keeps files; paths are ``a/b/c``.

    All of them raise StoreError where the place cannot be reached or refuses, and for a path that
    leads out of it. Symbolic links below the root are not followed.
    """

    exclusive: bool
    """Of several that create a file at once, one succeeds."""

    def read(self, path: str) -> bytes | None:
        """The whole file, or None where there is none.

        Raises:
            UnreadableFileError: this one file cannot be read, or is no regular file.
        """

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Write the whole file or nothing, replacing what was there.

        Args:
            durable: it outlasts a power cut.
        """

    def create(self, path: str, content: bytes) -> bool:
        """Write a file unless there is one; whether it was written.

        Of several that try at once one succeeds; where that is not `exclusive`, they all may.
        """

    def delete(self, path: str, *others: str) -> None:
        """Remove files of one folder, and the folders that this empties.

        Only regular files are removed; a file that is not there is gone already.
        """

    def folders(self, path: str) -> Iterator[str]:
        """Names of the folders in a folder, but those that begin with a dot."""

    def files(self, path: str) -> Iterator[Found]:
        """All files below a folder, "" for all; what others write meanwhile may be among them."""

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """Bytes in each of the files, None where there is no regular file."""


def inside(path: str) -> str:
    """The path, which leads nowhere but down.

    Raises:
        StoreError: it does not.
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
        mine = content, time.time()
        return self._content.setdefault(inside(path), mine) is mine

    def delete(self, path: str, *others: str) -> None:
        for each in (path, *others):
            self._content.pop(inside(each), None)

    def folders(self, path: str) -> Iterator[str]:
        start = len(path) + 1 if path else 0
        below = (found.path[start:] for found in self.files(path))
        names = {rest.partition("/")[0] for rest in below if "/" in rest}
        yield from (name for name in names if not name.startswith("."))

    def files(self, path: str) -> Iterator[Found]:
        start = f"{inside(path)}/" if path else ""
        # A copy, made at one go: another thread may be writing.
        for key, (content, modified) in self._content.copy().items():
            if key.startswith(start):
                yield Found(key, len(content), modified)

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        every = (self.read(path) for path in paths)
        return [None if content is None else len(content) for content in every]
