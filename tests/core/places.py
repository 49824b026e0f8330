"""Every place that keeps files, under one contract; and a folder that behaves as NFS does."""

import errno
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lth_core.store import make_folder, open_store
from lth_core.store.files import Files, MemoryFiles
from lth_core.store.folder import FolderFiles

PLACES = ["memory", "folder", "nfs", pytest.param("s3", marks=pytest.mark.slow)]


class Nfs:
    """A client's view of a folder, laid over the system calls that lead into it.

    It opens a file that another has replaced by the handle it remembers, once: ESTALE. It
    remembers that a name was not there until it lists the folder, or makes a file or folder of that
    name. A file that is held open is not deleted but renamed to .nfs..., which stays until the file
    is let go.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._patch = root, monkeypatch
        self.handles: dict[str, int] = {}
        self.absent: set[str] = set()
        self.held: set[str] = set()
        self.stale = 0
        self._lock = threading.Lock()
        """Over what is remembered; the system calls themselves are not held up."""
        self._stat, self._unlink = os.stat, os.unlink
        self._off = False
        for module, name in (
            (os, "stat"), (os, "lstat"), (os, "open"), (io, "open"), (os, "mkdir"), (os, "scandir"), (os, "unlink"),
            (os, "replace"),
        ):  # fmt: skip
            self._lay_over(module, name)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What is done now is done on another machine."""
        self._off = True
        yield
        self._off = False

    def _lay_over(self, module: Any, name: str) -> None:
        real, mine = getattr(module, name), getattr(self, f"_{module.__name__}_{name}")

        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            full = self._full(path, kwargs.get("dir_fd"))
            if self._off or full is None:
                return real(path, *args, **kwargs)
            return mine(real, full, path, *args, **kwargs)

        self._patch.setattr(module, name, call)

    def _full(self, path: Any, dir_fd: int | None) -> str | None:
        if not isinstance(path, (str, Path)):
            return None
        full = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd else "", path)
        return full if full.startswith(f"{self.root}/") else None

    def _looked_up(self, full: str) -> None:
        with self._lock:
            if full in self.absent:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", full)
            try:
                number = self._stat(full).st_ino
            except FileNotFoundError:
                self.absent.add(full)
                raise
            if self.handles.setdefault(full, number) != number:
                del self.handles[full]
                self.stale += 1
                raise OSError(errno.ESTALE, "Stale file handle", full)

    @contextmanager
    def _asked_of_the_server(self, full: str) -> Iterator[None]:
        """Whatever is remembered; afterwards it is known."""
        try:
            yield
        finally:
            with self._lock:
                self.absent.discard(full)

    def _os_stat(self, real: Any, full: str, *args: Any, **kwargs: Any) -> Any:
        self._looked_up(full)
        return real(*args, **kwargs)

    def _os_lstat(self, real: Any, full: str, *args: Any, **kwargs: Any) -> Any:
        self._looked_up(full)
        return real(*args, **kwargs)

    def _os_open(self, real: Any, full: str, path: Any, flags: int, *args: Any) -> Any:
        if not flags & (os.O_DIRECTORY | os.O_CREAT):
            self._looked_up(full)
        return real(path, flags, *args)

    def _io_open(self, real: Any, full: str, path: Any, mode: str = "r", *args: Any) -> Any:
        if mode[0] == "r":
            self._looked_up(full)
        with self._asked_of_the_server(full):
            return real(path, mode, *args)

    def _os_mkdir(self, real: Any, full: str, path: Any, *args: Any) -> Any:
        with self._asked_of_the_server(full):
            return real(path, *args)

    def _os_scandir(self, real: Any, full: str, path: Any) -> Any:
        with self._lock:
            self.absent = {each for each in self.absent if os.path.dirname(each) != full}
        return real(path)

    def _os_replace(self, real: Any, full: str, path: Any, target: Any) -> None:
        with self._asked_of_the_server(str(target)):
            real(path, target)

    def _os_unlink(self, real: Any, full: str, path: Any, **kwargs: Any) -> None:
        if "/.nfs" in full and self.held:
            raise OSError(errno.EBUSY, "Device or resource busy", full)
        if full in self.held:
            os.rename(full, os.path.join(os.path.dirname(full), ".nfs0001"))
        else:
            real(path, **kwargs)


@pytest.fixture
def nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nfs:
    """`tmp_path/nfs`, seen through NFS."""
    return Nfs(make_folder(tmp_path / "nfs"), monkeypatch)


@pytest.fixture(params=PLACES)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Every place that keeps files."""
    if request.param == "memory":
        return MemoryFiles()
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3"), make=False).files
    if request.param == "nfs":
        return FolderFiles(request.getfixturevalue("nfs").root)
    return FolderFiles(make_folder(tmp_path / "store"))
