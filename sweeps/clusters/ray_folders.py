"""Checks of the folders that Ray writes to on this machine, before it starts.

If one of them cannot be written, Ray 2.60 raises exceptions of many kinds, some after 30 s.
"""

from __future__ import annotations

import os
import sys
import tempfile
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
        LaunchError: a folder cannot be written, has too little space, or too long a path.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    folder = Path(os.environ.get(variable, "/tmp")).absolute()
    longest = LONGEST_SOCKET - len(f"/{SOCKET}")
    if (length := len(os.fsencode(folder))) > longest:
        rule = f"must name a folder whose path has at most {longest} bytes, for Ray's sockets in it"
        raise LaunchError(
            f"{variable}: {rule}, but got {folder} ({length} bytes); RAY_TMPDIR=/tmp is short"
        )
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
