"""Connection to Ray for the duration of a sweep: Ray of this machine, or of a cluster."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lth_core.errors import LaunchError, SpecError
from sweeps.clusters.capacity import PENDING, check_brought, check_fits, concurrency, fits, places
from sweeps.clusters.ray_folders import check_ray_folders, check_scratch
from sweeps.clusters.shared_folder import check_shared
from sweeps.studies.schema import Resources

logger = logging.getLogger("lth")

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Secrets that Tune would copy from here to the workers."""

SHORT = {
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # by default a wrong token is tried 20 times
    # Ray reports after this time that this machine is no node of the cluster.
    "RAY_gcs_server_request_timeout_seconds": "10",
}

GREETING = 5.0
"""Seconds in which a Ray head must accept a connection, and in which it must send its settings."""

PATIENCE = 20
"""Seconds in which a process must join a cluster; one or two are usual."""

TOKEN = Path(os.path.expanduser("~/.ray/auth_token"))  # Path.home() raises where there is none
"""File with the token of this user's clusters, unless the environment has one."""

HTTP2_SETTINGS = b"\x04"
"""Type of the frame that every gRPC server sends first."""

ADDRESS = (
    "must be HOST:PORT of a cluster's head, or auto on one of its nodes; without it, this machine "
    "sweeps alone"
)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):[0-9]{1,5}")

_JOIN = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
"""


@contextmanager
def joined(address: str | None, resources: Resources, store: str) -> Iterator[int]:
    """Start Ray on this machine, or join a cluster; shut it down or leave it afterwards.

    Yields:
        Number of trials to request at once.

    Raises:
        SpecError: the address is malformed.
        LaunchError: Ray cannot start here, the cluster cannot be joined, no node of it has what a
            trial needs, or the store is not the same folder on all of them.
    """
    check_scratch()
    if address is None:
        check_ray_folders(TOKEN)
    else:
        check_answers(address)
    os.environ.update(QUIET)
    import ray
    from ray.tune.execution import class_cache

    # Ray logs the environment that Tune carries to workers; each node has keys of its own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(KEYS)
    had_token = os.path.exists(TOKEN)
    if address is None:
        protect_token(TOKEN)
    start_ray(address)
    try:
        if address is None:
            keep_out(had_token)
            check_fits(resources, places(), "this machine")
        elif not fits(resources, places()):
            check_brought(resources)
        if address:
            check_shared(store)
        yield max(concurrency(resources), PENDING if address else 1)
    finally:
        ray.shutdown()


def protect_token(token: Path) -> None:
    """Remove other users' rights to Ray's token and its folder.

    The folder is made before Ray makes it: a user who can write to it could exchange the token of
    the next cluster.
    """
    with suppress(OSError):  # another user owns it, or the disk has no modes
        token.parent.mkdir(mode=0o700, exist_ok=True)
        token.parent.chmod(token.parent.stat().st_mode & ~0o022)
        token.chmod(0o600)


def start_ray(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at an address.

    Raises:
        LaunchError: Ray does not start, or the cluster cannot be joined.
    """
    import ray

    here: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        # "local": not any Ray that happens to run here.
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
    # Ray 2.60 raises a bare Exception where one of its processes does not start, and nothing
    # narrower covers that. The error is the cause of ours, and Ray's processes are ended.
    except Exception as error:
        ray.shutdown()
        if address is not None:
            raise _no_answer(address, str(error)) from error
        reason = _short(str(error) or type(error).__name__)
        raise LaunchError(
            f"Ray must start on this machine, but does not: {reason}; RAY_TMPDIR, TMPDIR and HOME "
            "name the folders that it writes to"
        ) from error


def keep_out(had_token: bool) -> None:
    """Warn once that Ray listens on all addresses, and name the token that guards it.

    Args:
        had_token: whether there was a token before; Ray makes one where there is none.
    """
    fact = "Ray listens on all addresses of this machine"
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        logger.warning("%s, and RAY_AUTH_MODE=disabled lets whoever reaches it run code here", fact)
    elif not had_token and TOKEN.exists():
        protect_token(TOKEN)  # Ray lets all users of the machine read it
        logger.warning("%s; its token in %s keeps others out", fact, TOKEN)


def check_answers(address: str) -> None:
    """Check that a cluster can be joined, in another process: Ray waits for minutes, or aborts.

    Raises:
        SpecError: the address is malformed.
        LaunchError: it cannot be joined from here within ``PATIENCE``, or is no Ray cluster.
    """
    check_greets(address)
    env = os.environ | QUIET | SHORT
    try:
        subprocess.run(
            [sys.executable, "-c", _JOIN, address], env=env, timeout=PATIENCE, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        reason = (
            f"a process that would join it was kept waiting for {PATIENCE} s: the head, which is "
            "there, or the raylet of this node hangs or is overloaded"
        )
        raise _no_answer(address, reason) from None
    except subprocess.CalledProcessError as error:
        raise _no_answer(address, _reason(error.stderr)) from None


def check_greets(address: str) -> None:
    """Check that a server at an address sends HTTP/2 settings first, as every gRPC server does.

    Raises:
        SpecError: the address is malformed.
        LaunchError: no server listens, or it is no gRPC server; each check takes ``GREETING``.
    """
    name, head = "--address", address
    if address == "auto":  # Ray reads RAY_ADDRESS then, or finds a cluster of this machine
        name, head = "RAY_ADDRESS", os.environ.get("RAY_ADDRESS", "")
        if not head:
            return
    if not _ADDRESS.fullmatch(head):
        raise SpecError(name, ADDRESS, head)
    if os.environ.get("RAY_USE_TLS") == "1":
        return
    host, _, port = head.rpartition(":")
    try:
        connected = socket.create_connection((host.strip("[]"), int(port)), GREETING)
    except TimeoutError:
        raise _no_answer(head, f"no connection within {GREETING:g} s") from None
    except (OSError, OverflowError) as error:
        raise _no_answer(head, str(error)) from None
    with connected:
        try:
            greeting = connected.recv(9)
        except TimeoutError:
            reason = f"connected, but silent for {GREETING:g} s, and a head of Ray's speaks first"
            raise _no_answer(head, reason) from None
        except OSError as error:
            raise _no_answer(head, str(error)) from None
    if greeting[3:4] != HTTP2_SETTINGS:
        raise _no_answer(head, "what listens there does not speak Ray")


def _no_answer(address: str, reason: str) -> LaunchError:
    return LaunchError(f"--address: no Ray cluster answers at {address}: {_short(reason)}")


def _reason(log: str) -> str:
    """The reason in a traceback; for a refused token, not Ray's last error, which omits it."""
    if refused := re.search(r"AuthenticationError: (.+)", log):
        return refused[1]
    if "when trying to resolve node to connect to" in log:
        return "call this on one of its nodes, for this machine is none"
    return re.split(r"^[\w.]*(?:error|exception): ", log, flags=re.I | re.M)[-1]


def _short(reason: str) -> str:
    return textwrap.shorten(reason, 360, placeholder=" ...")
