"""Versions, device, source and user that a run was made with."""

from __future__ import annotations

import getpass
import subprocess
from functools import lru_cache

from tracking.publish import names


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, and the device."""
    import platform
    from importlib.metadata import version

    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    packages = {name: version(name) for name in ("torch", "ray", "mlflow", "numpy")}
    return {**packages, "python": platform.python_version(), "device": device or platform.machine()}


def source_tags(source: str) -> dict[str, str]:
    """Tags from which MLflow's UI shows the source, its commit and the user.

    Args:
        source: path of the study's file.
    """
    tags = {
        names.SOURCE: source,
        names.SOURCE_TYPE: "LOCAL",
        names.COMMIT: git_commit(),
        names.USER: _user(),
    }
    return {name: value for name, value in tags.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""


def git_commit() -> str:
    """Git commit of the current folder; empty outside a repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
