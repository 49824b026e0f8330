"""A folder that keeps files, local or NFS."""

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
"""Times that a file is asked for while another process replaces it or deletes its folder."""

PAUSE = 0.001
"""Seconds at most before the second try, twice as long before each next one."""

BROKEN = (
    errno.ELOOP, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, errno.ENXIO, errno.ENODEV,
    errno.ENODATA, errno.EBADMSG, errno.EUCLEAN,
)  # fmt: skip
"""Errors of one file, not of the file system: a link, no permission, a bad sector, a device."""

T = TypeVar("T")

logger = logging.getLogger("lth")


class FolderFiles:
    """Files below a folder, local or NFS; the folder itself is never made.

    Args:
        root: may be a symbolic link; below it none is followed.
        marker: name of a file in the root that must stay there for as long as this is used. A share
            that was unmounted leaves an empty folder, which must not be taken for the store.
    """

    exclusive = True

    def __init__(self, root: str | os.PathLike[str], marker: str | None = None) -> None:
        self.root = Path(root).expanduser().absolute()
        self._marker = self.root / marker if marker else None

    def read(self, path: str) -> bytes | None:
        return self._looked_at(path, _content)

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        target = self.root / inside(path)

        def place() -> None:
            try:
                write_whole(target, content, durable=durable)
            except IsADirectoryError:
                self._move_aside(target)
                write_whole(target, content, durable=durable)

        self._changed("write", path, place)

    def create(self, path: str, content: bytes) -> bool:
        target = self.root / inside(path)

        def place() -> bool:
            try:
                _fill(target, "xb", content, durable=False)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno == errno.ENOSPC:  # so the file is there, empty
                    with suppress(OSError):
                        target.unlink()
                raise
            return True

        return self._changed("write", path, place)

    def delete(self, path: str, *others: str) -> None:
        def remove(target: Path) -> None:
            if stat.S_ISREG(os.lstat(target).st_mode) and not self._is_behind_a_link(target):
                target.unlink()

        for each in (path, *others):
            try:
                _patiently(partial(remove, self.root / inside(each)))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise self._complaint("delete", each, error) from None
        folder = (self.root / path).parent
        if not self._is_behind_a_link(folder):
            while folder != self.root and _remove_if_empty(folder):
                folder = folder.parent

    def folders(self, path: str) -> Iterator[str]:
        for entry in self._listed(path):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield entry.name

    def files(self, path: str) -> Iterator[StoredFile]:
        there = self._looked_at(path, os.lstat) if path else None
        if there and not stat.S_ISDIR(there.st_mode):
            yield _found(path, there)
        for entry in self._listed(path):
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.is_dir(follow_symlinks=False):
                try:
                    yield from self.files(below)
                except UnreadableFileError:
                    yield StoredFile(below, 0, 0, UNREADABLE)
            elif not entry.name.startswith(".nfs"):  # what NFS keeps of an open, deleted file
                there = self._looked_at(below, os.lstat)
                if there:  # not deleted since it was listed
                    yield _found(below, there)

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        found = (self._looked_at(path, os.lstat) for path in paths)
        return [each.st_size if each and stat.S_ISREG(each.st_mode) else None for each in found]

    def _listed(self, path: str) -> list[os.DirEntry[str]]:
        """Entries of a folder; none where there is no folder.

        Raises:
            UnreadableFileError: it cannot be listed.
            StoreError: the root is gone.
        """
        folder = self.root / inside(path) if path else self.root
        if path and (self._is_behind_a_link(folder) or os.path.islink(folder)):
            return []
        try:
            return _patiently(lambda: list(os.scandir(folder)))
        except (FileNotFoundError, NotADirectoryError):
            self._check_marker("list", path)
            return []
        except OSError as error:
            raise self._broken("list", path, error) from None

    def _looked_at(self, path: str, look: Callable[[Path], T]) -> T | None:
        """Result of ``look`` on a file; None where there is no file.

        An NFS client may remember that a file is not there; listing its folder makes it ask.
        """
        target = self.root / inside(path)
        for _ in range(TRIES):
            try:
                if self._is_behind_a_link(target):
                    raise OSError(errno.ELOOP, "is behind a symbolic link")
                return _patiently(lambda: look(target))
            except (FileNotFoundError, NotADirectoryError):
                beside = self._listed(path.rpartition("/")[0])
                if all(entry.name != target.name for entry in beside):
                    return None
            except OSError as error:
                raise self._broken("read", path, error) from None
        return None

    def _is_behind_a_link(self, target: Path) -> bool:
        """Whether a folder between the root and a file is a symbolic link."""
        above = target.relative_to(self.root).parts[:-1]
        folder, links = str(self.root), False
        for part in above:
            folder = f"{folder}/{part}"
            links = links or os.path.islink(folder)
        return links

    def _changed(self, verb: str, path: str, change: Callable[[], T]) -> T:
        """Make a change in a folder that is made where there is none, also if it goes meanwhile."""
        folder = (self.root / path).parent

        def made() -> T:
            self._make(folder)
            return change()

        try:
            return _patiently(made, errno.ESTALE, errno.ENOENT, errno.EEXIST)
        except OSError as error:
            self._check_marker(verb, path)
            raise self._complaint(verb, path, error) from None

    def _make(self, folder: Path) -> None:
        """Make a folder and those above it, but not the root; what is in its place moves aside."""
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
            raise OSError(errno.ENOTDIR, "what is there is no folder of the store")
        self._move_aside(folder)
        folder.mkdir(exist_ok=True)

    def _move_aside(self, target: Path) -> None:
        """Rename what is in the way; it is not the store's, so it is not deleted."""
        aside = target.rename(target.with_name(f"{target.name}.aside-{uuid.uuid4().hex[:8]}"))
        logger.warning("store %s: %s was in the way; it is %s now", self.root, target, aside.name)

    def _check_marker(self, verb: str, path: str) -> None:
        """See that the store is still in its folder.

        Raises:
            StoreError: it is not.
        """
        if self._marker is None:
            return
        marker = self._marker
        try:
            _patiently(lambda: os.lstat(marker))
        except OSError as error:
            raise StoreError(
                f"store {self.root}: cannot {verb} {path or 'it'}: the store is gone, its "
                f"{marker.name} cannot be found ({error.strerror})"
            ) from None

    def _broken(self, verb: str, path: str, error: OSError) -> StoreError:
        """The error of one file, or of the whole store."""
        self._check_marker(verb, path)
        if path and error.errno in BROKEN and os.access(self.root, os.R_OK | os.X_OK):
            return UnreadableFileError(path, str(error.strerror))
        return self._complaint(verb, path, error)

    def _complaint(self, verb: str, path: str, error: OSError) -> StoreError:
        free = ""
        if error.errno == errno.ENOSPC:
            free = f"; {shutil.disk_usage(self.root).free} bytes are free"
        return StoreError(f"store {self.root}: cannot {verb} {path} ({error.strerror}{free})")


def write_whole(target: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file whole or not at all, in place of one that is there.

    Args:
        durable: the file outlasts a power cut.

    Raises:
        OSError: it cannot be written; nothing is left beside it.
    """
    scratch = target.with_name(_scratch_name())
    try:
        _fill(scratch, "wb", content, durable)
        scratch.replace(target)
        if durable:
            _sync_names(target.parent)
    except OSError:
        with suppress(OSError):  # the first error is the one to report
            scratch.unlink()
        raise


def _content(path: Path) -> bytes:
    """A regular file's content; neither a link is followed nor a FIFO waited for."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EISDIR, "is no regular file")
        with os.fdopen(number, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(number)


def _found(path: str, there: os.stat_result) -> StoredFile:
    if stat.S_ISREG(there.st_mode):
        return StoredFile(path, there.st_size, there.st_mtime)
    return StoredFile(path, 0, there.st_mtime, LINK if stat.S_ISLNK(there.st_mode) else DEVICE)


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


def _fill(target: Path, mode: str, content: bytes, durable: bool) -> None:
    with target.open(mode) as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    """Have a folder's names outlast a power cut: a file that is synced under none is lost."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:  # another has deleted it since
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # there are file systems that sync no folders
            raise
    finally:
        os.close(number)


def _patiently(act: Callable[[], T], *passing: int) -> T:
    """Act, again where the error is one that passes; by default, a file replaced under NFS."""
    for number in range(TRIES - 1):
        try:
            return act()
        except OSError as error:
            if error.errno not in (passing or (errno.ESTALE,)):
                raise
        # Of random length, or those who are in each other's way would meet again.
        time.sleep(PAUSE * 2**number * os.urandom(1)[0] / 255)
    return act()
