"""Checks of the folders that Ray writes to on this machine, before it starts, and a short path.

If one of them cannot be written, Ray 2.60 raises exceptions of many kinds, some after 30 s.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lth_core.errors import LaunchError

FREE_BYTES = 16 * 2**20
"""Bytes that must be free for temporary files. The logs of a small sweep take 0.5 MB."""

TOKEN_SIZE = 64
"""Size of Ray's token in bytes."""

SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket in Ray's folder: date, time and process id have these widths."""

LONGEST_SOCKET = 107 if sys.platform == "linux" else 103
"""The operating system's limit of a socket's path, in bytes."""

SHORT = Path("/tmp")
"""Folder of links to folders whose paths are too long for Ray's sockets."""


def check_scratch() -> None:
    """Check the folder of temporary files, where Ray Tune keeps the records of a sweep.

    Raises:
        LaunchError: it cannot be written, or has less than `FREE_BYTES`.
    """
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        raise _unusable("TMPDIR", "Ray Tune's records", FREE_BYTES, str(error.strerror)) from None
    _check_writable("TMPDIR", Path(folder), FREE_BYTES, "Ray Tune's records")


def check_ray_folders(token: Path) -> None:
    """Check the folders that Ray writes to when it starts on this machine.

    Args:
        token: the file of Ray's token, which Ray makes if it is missing.

    Raises:
        LaunchError: a folder cannot be written, or has too little space.
    """
    variable, folder = _ray_folder()
    _check_writable(variable or "RAY_TMPDIR", folder / "ray", FREE_BYTES, "Ray's sockets and logs")
    if sys.platform == "linux":
        shared = Path("/dev/shm")
        if not shared.is_dir():
            raise _unusable(str(shared), "the memory that Ray's processes share", 0, "no folder")
        # If it is full, Ray shares memory in its own folder.
        _check_writable(str(shared), shared, 0, "the memory that Ray's processes share")
    is_set = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    is_needed = os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    if is_needed and not is_set and not os.path.exists(token):
        if not token.is_absolute():
            raise _unusable("HOME", "Ray's token", TOKEN_SIZE, "no home folder")
        _check_writable("HOME", token.parent, TOKEN_SIZE, "Ray's token")


@contextmanager
def short_ray_folder() -> Iterator[None]:
    """Give Ray a short path to its folder while the block runs, if its sockets need one.

    The path is a link that only this user can reach. What Ray writes stays in the folder that
    RAY_TMPDIR or TMPDIR names.

    Raises:
        LaunchError: the link cannot be made.
    """
    variable, folder = _ray_folder()
    longest = LONGEST_SOCKET - len(f"/{SOCKET}")
    if (length := len(os.fsencode(folder))) <= longest:
        yield
        return
    try:
        private = tempfile.TemporaryDirectory(prefix="lth-", dir=SHORT)
    except OSError as error:
        rule = f"must name a folder whose path has at most {longest} bytes, for Ray's sockets in it"
        reason = f"{length} bytes, and no short link can be made in {SHORT}: {error.strerror}"
        raise LaunchError(f"{variable}: {rule}, but got {folder} ({reason})") from None
    before = os.environ.get("RAY_TMPDIR")
    with private as link_folder:
        link = Path(link_folder) / "tmp"
        link.symlink_to(folder)
        os.environ["RAY_TMPDIR"] = str(link)
        try:
            yield
        finally:
            if before is None:
                del os.environ["RAY_TMPDIR"]
            else:
                os.environ["RAY_TMPDIR"] = before


def _ray_folder() -> tuple[str, Path]:
    """Folder in which Ray makes its own, and the environment variable that names it, if any."""
    variables = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    variable = next((name for name in variables if name in os.environ), "")
    return variable, Path(os.environ.get(variable, "/tmp")).absolute()


def _check_writable(name: str, folder: Path, size: int, purpose: str) -> None:
    """Check a folder by writing ``size`` bytes: quotas and network folders have no other test."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(size))
    except OSError as error:
        raise _unusable(name, purpose, size, f"{folder} ({error.strerror})") from None


def _unusable(name: str, purpose: str, size: int, got: str) -> LaunchError:
    free = f", with {size / 2**20:.2g} MiB free" if size >= 2**20 else ""
    verb = "be" if name.startswith("/") else "name"
    rule = f"must {verb} a folder that can be written{free}, for {purpose}"
    return LaunchError(f"{name}: {rule}, but got {got}")
