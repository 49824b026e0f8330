"""Versions, device and commit that a run was made with."""

from __future__ import annotations

import subprocess
from functools import lru_cache


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, and the device."""
    import platform
    from importlib.metadata import version

    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    packages = {name: version(name) for name in ("torch", "ray", "mlflow", "numpy")}
    return {**packages, "python": platform.python_version(), "device": device or platform.machine()}


def git_commit() -> str:
    """Git commit of the current folder; empty outside a repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
