"""Files in a folder, local or NFS."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from lth_core.errors import StoreError, UnreadableFileError
from lth_core.store.files import DEVICE, LINK, UNREADABLE, StoredFile, inside

TRIES = 10
"""Attempts at an operation while another process replaces the file or deletes its folder."""

PAUSE = 0.001
"""Longest pause in seconds before the second attempt; doubled before each further attempt."""

FILE_ERRORS = (
    errno.ELOOP, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, errno.ENXIO, errno.ENODEV,
    errno.ENODATA, errno.EBADMSG, errno.EUCLEAN,
)  # fmt: skip
"""Errors of one file, not of the file system: a link, no permission, a bad sector, a device."""

T = TypeVar("T")

logger = logging.getLogger("lth")


class FolderFiles:
    """Files below a folder, local or NFS; the folder itself is never created.

    Args:
        root: may be a symbolic link; below it none is followed.
        marker: name of a file in the root whose absence means that the store is gone. A share that
            was unmounted leaves an empty folder, which must not be mistaken for the store.
    """

    exclusive = True

    def __init__(self, root: str | os.PathLike[str], marker: str | None = None) -> None:
        self.root = Path(root).expanduser().absolute()
        self._marker = self.root / marker if marker else None

    def read(self, path: str) -> bytes | None:
        return self._if_present(path, _content)

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        target = self.root / inside(path)

        def replace() -> None:
            try:
                write_whole(target, content, durable=durable)
            except IsADirectoryError:
                self._move_aside(target)
                write_whole(target, content, durable=durable)

        self._apply("write", path, replace)

    def create(self, path: str, content: bytes) -> bool:
        target = self.root / inside(path)

        def write_new() -> bool:
            try:
                _write_content(target, "xb", content, durable=False)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno == errno.ENOSPC:  # the file was created, but is empty
                    with suppress(OSError):
                        target.unlink()
                raise
            return True

        return self._apply("write", path, write_new)

    def delete(self, path: str, *others: str) -> None:
        def remove(target: Path) -> None:
            if stat.S_ISREG(os.lstat(target).st_mode) and not self._is_behind_a_link(target):
                target.unlink()

        for each in (path, *others):
            try:
                _retry(partial(remove, self.root / inside(each)))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise self._store_error("delete", each, error) from None
        folder = (self.root / path).parent
        if not self._is_behind_a_link(folder):
            while folder != self.root and _remove_if_empty(folder):
                folder = folder.parent

    def folders(self, path: str) -> Iterator[str]:
        for entry in self._listed(path):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield entry.name

    def files(self, path: str) -> Iterator[StoredFile]:
        status = self._if_present(path, os.lstat) if path else None
        if status and not stat.S_ISDIR(status.st_mode):
            yield _stored_file(path, status)
        for entry in self._listed(path):
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.is_dir(follow_symlinks=False):
                try:
                    yield from self.files(below)
                except UnreadableFileError:
                    yield StoredFile(below, 0, 0, UNREADABLE)
            elif not entry.name.startswith(".nfs"):  # NFS's copy of an open, deleted file
                status = self._if_present(below, os.lstat)
                if status:  # not deleted since it was listed
                    yield _stored_file(below, status)

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        statuses = (self._if_present(path, os.lstat) for path in paths)
        return [
            status.st_size if status and stat.S_ISREG(status.st_mode) else None
            for status in statuses
        ]

    def _listed(self, path: str) -> list[os.DirEntry[str]]:
        """Entries of a folder; none where there is no folder.

        Raises:
            UnreadableFileError: the folder cannot be listed.
            StoreError: the root is gone.
        """
        folder = self.root / inside(path) if path else self.root
        if path and (self._is_behind_a_link(folder) or os.path.islink(folder)):
            return []
        try:
            return _retry(lambda: list(os.scandir(folder)))
        except (FileNotFoundError, NotADirectoryError):
            self._check_marker("list", path)
            return []
        except OSError as error:
            raise self._read_error("list", path, error) from None

    def _if_present(self, path: str, read: Callable[[Path], T]) -> T | None:
        """Result of ``read`` on a file; None where there is no file.

        An NFS client may cache that a file is missing; listing the folder refreshes the cache.
        """
        target = self.root / inside(path)
        for _ in range(TRIES):
            try:
                if self._is_behind_a_link(target):
                    raise OSError(errno.ELOOP, "is behind a symbolic link")
                return _retry(lambda: read(target))
            except (FileNotFoundError, NotADirectoryError):
                siblings = self._listed(path.rpartition("/")[0])
                if all(entry.name != target.name for entry in siblings):
                    return None
            except OSError as error:
                raise self._read_error("read", path, error) from None
        return None

    def _is_behind_a_link(self, target: Path) -> bool:
        """Whether a folder between the root and a file is a symbolic link."""
        folder = str(self.root)
        for name in target.relative_to(self.root).parts[:-1]:
            folder = f"{folder}/{name}"
            if os.path.islink(folder):
                return True
        return False

    def _apply(self, verb: str, path: str, change: Callable[[], T]) -> T:
        """Change a file, whose folder is created first, and again if it is deleted meanwhile."""
        folder = (self.root / path).parent

        def make_and_change() -> T:
            self._make(folder)
            return change()

        try:
            return _retry(make_and_change, errno.ESTALE, errno.ENOENT, errno.EEXIST)
        except OSError as error:
            self._check_marker(verb, path)
            raise self._store_error(verb, path, error) from None

    def _make(self, folder: Path) -> None:
        """Create a folder and its parents below the root; rename files that are in its place."""
        if folder == self.root:
            return
        self._make(folder.parent)
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            self._check_marker("write", str(folder.relative_to(self.root)))
            folder.mkdir(exist_ok=True)
            return
        if stat.S_ISDIR(mode):
            return
        if folder.parent == self.root:  # `status` may be a file of the user's
            raise OSError(errno.ENOTDIR, "the file in its place is not the store's")
        self._move_aside(folder)
        folder.mkdir(exist_ok=True)

    def _move_aside(self, target: Path) -> None:
        """Rename a file or folder in the way; it is not the store's, so it is not deleted."""
        aside = target.rename(target.with_name(f"{target.name}.aside-{uuid.uuid4().hex[:8]}"))
        logger.warning("store %s: %s was in the way; it is %s now", self.root, target, aside.name)

    def _check_marker(self, verb: str, path: str) -> None:
        """Check that the store is still in its folder.

        Raises:
            StoreError: the marker is gone.
        """
        if (marker := self._marker) is None:
            return
        try:
            _retry(lambda: os.lstat(marker))
        except OSError as error:
            raise StoreError(
                f"store {self.root}: cannot {verb} {path or 'it'}: the store is gone, its "
                f"{marker.name} cannot be found ({error.strerror})"
            ) from None

    def _read_error(self, verb: str, path: str, error: OSError) -> StoreError:
        """An error that names one file, or the whole store."""
        self._check_marker(verb, path)
        if path and error.errno in FILE_ERRORS and os.access(self.root, os.R_OK | os.X_OK):
            return UnreadableFileError(path, str(error.strerror))
        return self._store_error(verb, path, error)

    def _store_error(self, verb: str, path: str, error: OSError) -> StoreError:
        free = ""
        if error.errno == errno.ENOSPC:
            free = f"; {shutil.disk_usage(self.root).free} bytes are free"
        return StoreError(f"store {self.root}: cannot {verb} {path} ({error.strerror}{free})")


def write_whole(target: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file whole or not at all; an existing file is replaced.

    Args:
        durable: whether the file survives a power cut.

    Raises:
        OSError: it cannot be written; no scratch file is left.
    """
    if not target.name:  # "." and "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    scratch = target.with_name(_scratch_name())
    try:
        _write_content(scratch, "wb", content, durable)
        scratch.replace(target)
        if durable:
            _sync_names(target.parent)
    except OSError:
        with suppress(OSError):  # the first error is the one to report
            scratch.unlink()
        raise


def _content(path: Path) -> bytes:
    """A regular file's content. No link is followed, and a FIFO does not block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EISDIR, "is no regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _stored_file(path: str, status: os.stat_result) -> StoredFile:
    if stat.S_ISREG(status.st_mode):
        return StoredFile(path, status.st_size, status.st_mtime)
    return StoredFile(path, 0, status.st_mtime, LINK if stat.S_ISLNK(status.st_mode) else DEVICE)


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
        return True
    except OSError:  # it is gone, or there are other files in it
        with suppress(OSError):
            # NFS keeps a deleted file as .nfs... while a process of this machine has it open.
            if all(name.startswith(".nfs") for name in os.listdir(folder)):
                folder.rename(folder.with_name(_scratch_name()))
        return False


def _scratch_name() -> str:
    return f".{uuid.uuid4().hex}.tmp"


def _write_content(target: Path, mode: str, content: bytes, durable: bool) -> None:
    with target.open(mode) as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    """Sync a folder's names: after a power cut, a synced file without a synced name is lost."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:  # another process has deleted it
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _retry(act: Callable[[], T], *transient: int) -> T:
    """Result of ``act``, retried after transient errors.

    Args:
        transient: numbers of these errors; by default ESTALE, of a file replaced under NFS.
    """
    for attempt in range(TRIES - 1):
        try:
            return act()
        except OSError as error:
            if error.errno not in (transient or (errno.ESTALE,)):
                raise
        # A random pause: two processes that collided would collide again after equal ones.
        time.sleep(PAUSE * 2**attempt * os.urandom(1)[0] / 255)
    return act()
