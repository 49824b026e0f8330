"""A folder that keeps files, local or NFS."""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lth_core.errors import StoreError
from lth_core.files import SCRATCH, Found, inside

TRIES = 10
"""Times that a file is asked for while another process replaces it or deletes its folder."""

PAUSE = 0.001
"""Seconds at most before the second try, twice as long before each next one."""

T = TypeVar("T")


class FolderFiles:
    """Files below a folder, local or NFS."""

    exclusive = True

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser().absolute()

    def read(self, path: str) -> bytes | None:
        return self._looked_at(path, Path.read_bytes)

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        target = self.root / inside(path)

        def place() -> None:
            scratch = target.with_name(_scratch())
            try:
                _fill(scratch, "wb", content, durable)
                scratch.replace(target)
                if durable:
                    _sync_names(target.parent)
            except OSError:
                with suppress(OSError):  # the first error is the one to tell
                    scratch.unlink()
                raise

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

    def delete(self, path: str) -> None:
        target = self.root / inside(path)

        def remove() -> None:
            try:
                target.unlink()
            except (IsADirectoryError, PermissionError):
                if not target.is_dir():
                    raise
                # Out of sight at once: a file that a process of this machine has open stays in
                # its folder on NFS, as .nfs..., until it is closed.
                away = target.rename(target.with_name(_scratch()))
                shutil.rmtree(away, ignore_errors=True)

        try:
            _patiently(remove)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._complaint("delete", path, error) from None
        with suppress(OSError):  # others are in it
            if target.parent != self.root:
                target.parent.rmdir()

    def folders(self, path: str) -> Iterator[str]:
        for entry in self._listed(path):
            if not entry.name.startswith(".") and entry.is_dir():
                yield entry.name

    def files(self, path: str) -> Iterator[Found]:
        for entry in self._listed(path):
            below = f"{path}/{entry.name}" if path else entry.name
            if entry.is_dir():
                yield from self.files(below)
            elif not entry.name.startswith(".nfs"):  # what NFS keeps of an open, deleted file
                found = self._looked_at(below, os.stat)
                if found:  # not deleted since it was listed
                    yield Found(below, found.st_size, found.st_mtime)

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        found = (self._looked_at(path, os.stat) for path in paths)
        return [None if each is None else each.st_size for each in found]

    def _listed(self, path: str) -> list[os.DirEntry[str]]:
        try:
            folder = self.root / inside(path) if path else self.root
            return _patiently(lambda: list(os.scandir(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._complaint("list", path, error) from None

    def _looked_at(self, path: str, look: Callable[[Path], T]) -> T | None:
        """What a look at a file gives; None where there is none.

        An NFS client may remember that a file is not there; listing its folder makes it ask.
        """
        target = self.root / inside(path)
        for _ in range(TRIES):
            try:
                return _patiently(lambda: look(target))
            except (FileNotFoundError, NotADirectoryError):
                beside = self._listed(path.rpartition("/")[0])
                if all(entry.name != target.name for entry in beside):
                    return None
            except IsADirectoryError:
                return None
            except OSError as error:
                raise self._complaint("read", path, error) from None
        return None

    def _changed(self, verb: str, path: str, change: Callable[[], T]) -> T:
        """Make a change in a folder that is made where there is none, also if it goes meanwhile."""
        parent = (self.root / path).parent

        def made() -> T:
            parent.mkdir(parents=True, exist_ok=True)
            return change()

        try:
            return _patiently(made, errno.ESTALE, errno.ENOENT, errno.EEXIST)
        except OSError as error:
            raise self._complaint(verb, path, error) from None

    def _complaint(self, verb: str, path: str, error: OSError) -> StoreError:
        free = ""
        if error.errno == errno.ENOSPC:
            free = f"; {shutil.disk_usage(self.root).free} bytes are free"
        return StoreError(f"store {self.root}: cannot {verb} {path} ({error.strerror}{free})")


def _scratch() -> str:
    return f".{uuid.uuid4().hex}{SCRATCH}"


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
