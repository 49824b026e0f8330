"""Ray, for the duration of a sweep: this machine's own, or a cluster's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lth_core.errors import LaunchError
from sweeps.config import Resources

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that was given no GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def joined(address: str | None, resources: Resources) -> Iterator[None]:
    """Ray, started on this machine or joined at an address, let go of afterwards.

    Raises:
        LaunchError: the cluster cannot be reached, or has not what a trial needs.
    """
    if address:
        _check_address(address)
    os.environ.update(QUIET)
    import ray

    here: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        tried = address or "this machine"
        reason = str(error).strip().splitlines()[0]
        raise LaunchError(f"--address: no Ray cluster answers at {tried}: {reason}") from None
    try:
        there = ray.cluster_resources()
        for name, need in (("CPU", resources.cpu), ("GPU", resources.gpu)):
            if address is None and need > there.get(name, 0):
                field = f"resources.{name.lower()}"
                hint = f"; {field}=0 runs on CPUs" if name == "GPU" else ""
                raise LaunchError(
                    f"{field}: a trial needs {need:g}, but this machine has "
                    f"{there.get(name, 0):g}{hint}"
                )
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Ray itself waits minutes for a cluster that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise LaunchError(f"--address: no Ray cluster answers at {address}: {error}") from None
