"""Connection to Ray for the duration of a sweep, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import re
import shlex
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from lth_core.errors import LaunchError, SpecError
from sweeps.clusters.capacity import (
    LEAST_REQUESTED,
    check_autoscaler,
    check_fits,
    concurrency,
    fits,
    node_resources,
)
from sweeps.clusters.ray_folders import check_ray_folders, check_scratch, short_ray_folder
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

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Environment variables that Tune would copy from here to the workers."""

FAIL_FAST = {
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # by default a wrong token is tried 20 times
    # After this time Ray reports that this machine is no node of the cluster.
    "RAY_gcs_server_request_timeout_seconds": "10",
}

GREETING_TIMEOUT = 5.0
"""Seconds that a Ray head has to accept a connection, and as many to send its settings."""

JOIN_TIMEOUT = 20
"""Seconds that a process has to join a cluster; it usually takes one or two."""

TOKEN = Path(os.path.expanduser("~/.ray/auth_token"))  # Path.home() raises where there is none
"""File with the token of this user's clusters, unless the environment has one."""

HTTP2_SETTINGS = b"\x04"
"""Type of the HTTP/2 frame that every gRPC server sends first."""

ADDRESS = (
    "must be HOST:PORT of a cluster's head, or auto on one of its nodes; without it, the sweep "
    "runs on this machine"
)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):[0-9]{1,5}")

_JOIN = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
"""


class _NoFolders(list[str]):
    """A list that stays empty.

    Ray 2.60 adds the driver's folders to it, and its workers search them first: a `random.py` or
    `sweeps.py` of the user's would be imported by Ray and by us. Our workers search them last.
    """

    def extend(self, folders: Iterable[str]) -> None:
        """Add nothing."""


@contextmanager
def joined(address: str | None, resources: Resources, store: str) -> Iterator[int]:
    """Start Ray on this machine or join a cluster; afterwards shut it down or leave it.

    Yields:
        Number of trials to request at once.

    Raises:
        SpecError: the address is malformed.
        LaunchError: Ray cannot start here, the cluster cannot be joined, no node has the resources
            of a trial, or the store is not the same folder on all nodes.
    """
    check_scratch()
    if address is None:
        check_ray_folders(TOKEN)
    else:
        check_cluster(address)
    with short_ray_folder() if address is None else nullcontext():
        os.environ.update(QUIET)
        import ray
        from ray.tune.execution import class_cache

        # Ray logs the variables that Tune copies to workers; each node has its own secrets.
        class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)
        had_token = os.path.exists(TOKEN)
        if address is None:
            protect_token(TOKEN)
        start_ray(address)
        try:
            if address is None:
                warn_of_open_ports(had_token)
                check_fits(resources, node_resources(), "this machine")
            elif not fits(resources, node_resources()):
                check_autoscaler(resources)
            if address:
                check_shared(store)
            yield max(concurrency(resources), LEAST_REQUESTED if address else 1)
        finally:
            ray.shutdown()


def protect_token(token: Path) -> None:
    """Remove other users' rights to Ray's token and its folder.

    The folder is made before Ray makes it: a user who can write to it could replace the token of
    the next cluster.
    """
    with suppress(OSError):  # another user owns it, or the file system has no modes
        token.parent.mkdir(mode=0o700, exist_ok=True)
        token.parent.chmod(token.parent.stat().st_mode & ~0o022)
        token.chmod(0o600)


def start_ray(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at an address.

    Raises:
        LaunchError: Ray does not start, or the cluster cannot be joined.
    """
    import ray
    from ray.job_config import JobConfig

    options: dict[str, Any] = {}
    if address is None:
        options["include_dashboard"] = False
        # Ray would start a worker for each CPU. No trial would run in it, because Tune's workers
        # have another environment.
        options["_system_config"] = {"prestart_worker_first_driver": False}
        # Ray starts workers by a shell, and does not quote the path of a folder with spaces.
        if (quoted := shlex.quote(sys.executable)) != sys.executable:
            options["runtime_env"] = {"py_executable": quoted}
    options["job_config"] = JobConfig()
    options["job_config"]._py_driver_sys_path = _NoFolders()
    try:
        # "local" starts a new Ray, where None would join one that runs here.
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **options)
    # Ray 2.60 raises a bare Exception where one of its processes does not start, so no narrower
    # type covers that. The LaunchError names it as its cause, and Ray's processes are ended.
    except Exception as error:
        ray.shutdown()
        if address is not None:
            raise _no_answer(address, str(error)) from error
        reason = _short(str(error) or type(error).__name__)
        raise LaunchError(
            f"Ray must start on this machine, but does not: {reason}; RAY_TMPDIR, TMPDIR and HOME "
            "name the folders that it writes to"
        ) from error


def warn_of_open_ports(had_token: bool) -> None:
    """Warn once that Ray listens on all addresses, and name the token that protects it.

    Args:
        had_token: whether there was a token before Ray started, which makes one otherwise.
    """
    fact = "Ray listens on all addresses of this machine"
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        logger.warning(
            "%s, and with RAY_AUTH_MODE=disabled everyone who reaches it can run code here", fact
        )
    elif not had_token and TOKEN.exists():
        protect_token(TOKEN)  # Ray lets all users of the machine read it
        logger.warning("%s; it refuses clients without the token in %s", fact, TOKEN)


def check_cluster(address: str) -> None:
    """Check in another process that a cluster can be joined: Ray may wait for minutes, or abort.

    Raises:
        SpecError: the address is malformed.
        LaunchError: it cannot be joined from here within `JOIN_TIMEOUT`, or is no Ray cluster.
    """
    check_server(address)
    env = os.environ | QUIET | FAIL_FAST
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", _JOIN, address], env=env, timeout=JOIN_TIMEOUT, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        reason = (
            f"a process could not join within {JOIN_TIMEOUT} s: the head, which accepts "
            "connections, or this node's raylet hangs or is overloaded"
        )
        raise _no_answer(address, reason) from None
    except subprocess.CalledProcessError as error:
        raise _no_answer(address, _reason(error.stderr)) from None


def check_server(address: str) -> None:
    """Check that a server at an address sends HTTP/2 settings first, as every gRPC server does.

    Raises:
        SpecError: the address is malformed.
        LaunchError: no server answers within `GREETING_TIMEOUT`, or it is no gRPC server.
    """
    name, head = "--address", address
    if address == "auto":  # Ray then reads RAY_ADDRESS, or finds a cluster on this machine
        name, head = "RAY_ADDRESS", os.environ.get("RAY_ADDRESS", "")
        if not head:
            return
    if not _ADDRESS.fullmatch(head):
        raise SpecError(name, ADDRESS, head)
    if os.environ.get("RAY_USE_TLS") == "1":
        return
    host, _, port = head.rpartition(":")
    try:
        connected = socket.create_connection((host.strip("[]"), int(port)), GREETING_TIMEOUT)
    except TimeoutError:
        raise _no_answer(head, f"no connection within {GREETING_TIMEOUT:g} s") from None
    except (OSError, OverflowError) as error:
        raise _no_answer(head, str(error)) from None
    with connected:
        try:
            greeting = connected.recv(9)
        except TimeoutError:
            reason = f"connected, but it sent nothing for {GREETING_TIMEOUT:g} s, unlike a Ray head"
            raise _no_answer(head, reason) from None
        except OSError as error:
            raise _no_answer(head, str(error)) from None
    if greeting[3:4] != HTTP2_SETTINGS:
        raise _no_answer(head, "the server there is not a Ray head")


def _no_answer(address: str, reason: str) -> LaunchError:
    return LaunchError(f"--address: no Ray cluster answers at {address}: {_short(reason)}")


def _reason(log: str) -> str:
    """The reason in a traceback. Ray's last error omits a refused token, so that is looked for."""
    if refused := re.search(r"AuthenticationError: (.+)", log):
        return refused[1]
    if "when trying to resolve node to connect to" in log:
        return "this machine is not one of its nodes; run the command on one"
    return re.split(r"^[\w.]*(?:error|exception): ", log, flags=re.I | re.M)[-1]


def _short(reason: str) -> str:
    return textwrap.shorten(reason, 360, placeholder=" ...")
