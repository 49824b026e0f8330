"""Ray, for the duration of a sweep: this machine's own, or a cluster's."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lth_core.errors import LaunchError
from sweeps.config import Resources

logger = logging.getLogger("lth")

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that was given no GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Secrets that Tune would carry from here to the workers."""

SHORT = {
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # a wrong token is refused at once; 20 times, otherwise
    "RAY_gcs_server_request_timeout_seconds": "10",  # to find out that this is no node of it
}

GREETING = 5.0
"""Seconds in which a Ray head greets whoever connects; it does so at once."""

PATIENCE = 60
"""Seconds that a cluster which has greeted has for the rest: on a busy machine Ray is slow."""

AUTOSCALER = 15
"""Seconds in which an autoscaler must have looked at what is asked for; it does every five."""

PENDING = 16
"""Trials that at least are asked of a cluster at once: its autoscaler goes by what is waiting."""

TOKEN = Path.home() / ".ray" / "auth_token"
"""Where Ray keeps the token of this user's clusters, unless the environment has one."""

HTTP2_SETTINGS = b"\x04"
"""The type of the frame with which every gRPC server begins."""

GPU_TYPE = "accelerator_type:"
"""What Ray puts before a GPU's name to make a resource of it."""

_JOIN = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
"""

Place = Mapping[str, float]
"""What a node has, in Ray's names: CPU, GPU, accelerator_type:A10G, ..."""


@contextmanager
def joined(address: str | None, resources: Resources, store: str) -> Iterator[int]:
    """Ray, started on this machine or joined at an address, let go of afterwards.

    Yields:
        How many trials to ask of it at once.

    Raises:
        LaunchError: the cluster cannot be joined, no node of it has what a trial needs, or the
            store is not the same folder on all of them.
    """
    if address:
        check_answers(address)
    os.environ.update(QUIET)
    import ray
    from ray.tune.execution import class_cache

    # Ray logs the environment that Tune carries to workers; each node has keys of its own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(KEYS)
    here: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    knew = TOKEN.exists()
    try:
        # "local": not any Ray that happens to run here.
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise _no_answer(address or "this machine", str(error)) from None
    try:
        if address is None:
            keep_out(knew)
            check_fits(resources, places(), "this machine")
        elif not fits(resources, places()):
            check_brought(resources)
        if address:
            check_shared(store)
        yield max(lanes(resources), PENDING if address else 1)
    finally:
        ray.shutdown()


def keep_out(knew: bool) -> None:
    """Say once what keeps others out: Ray cannot be told to listen on this machine alone.

    Args:
        knew: whether the token was there before; Ray makes one where there is none.
    """
    said = "Ray listens on all addresses of this machine"
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        logger.warning("%s, and RAY_AUTH_MODE=disabled lets whoever reaches it run code here", said)
    elif not knew and TOKEN.exists():
        TOKEN.chmod(0o600)  # Ray lets all users of the machine read it
        logger.warning("%s; its token in %s keeps others out", said, TOKEN)


def check_answers(address: str) -> None:
    """Join a cluster in a process of its own first: Ray waits for minutes, or aborts.

    Raises:
        LaunchError: it cannot be joined from here within ``PATIENCE``, or does not speak Ray.
    """
    check_greets(address)
    env = os.environ | QUIET | SHORT
    try:
        subprocess.run(
            [sys.executable, "-c", _JOIN, address], env=env, timeout=PATIENCE, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _no_answer(address, f"it let nobody join within {PATIENCE} s") from None
    except subprocess.CalledProcessError as error:
        raise _no_answer(address, _reason(error.stderr)) from None


def check_greets(address: str) -> None:
    """See that who listens there speaks first, as every server of gRPC's does: HTTP/2 settings.

    Raises:
        LaunchError: nobody listens, or it is something else; within ``GREETING``.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or os.environ.get("RAY_USE_TLS") == "1":
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), GREETING) as connected:
            connected.settimeout(GREETING)
            greeting = connected.recv(9)
    except TimeoutError:
        greeting = b""
    except (OSError, OverflowError) as error:
        raise _no_answer(address, str(error)) from None
    if greeting[3:4] != HTTP2_SETTINGS:
        raise _no_answer(address, "what listens there does not speak Ray")


def tune_resources(resources: Resources) -> dict[str, float]:
    """What a trial asks of Ray Tune."""
    asked = {"cpu": resources.cpu, "gpu": resources.gpu}
    if resources.gpu_type:
        asked[GPU_TYPE + resources.gpu_type] = 0.001  # as Ray's own accelerator_type option
    return asked


def lanes(resources: Resources) -> int:
    """Trials that may run side by side on the nodes that are there; at least one."""
    import ray

    there, asked = ray.cluster_resources(), {"CPU": resources.cpu, "GPU": resources.gpu}
    return max(1, int(min(there.get(name, 0) / need for name, need in asked.items() if need)))


def places() -> list[Place]:
    """The joined cluster's nodes."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_brought(resources: Resources) -> None:
    """See whether the autoscaler will bring a node for a trial: a place is asked for, as Tune will.

    Raises:
        LaunchError: it will not, or there is none.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([_asked(resources)])
    before, seen = _scaling(), 0
    until = time.monotonic() + AUTOSCALER
    try:
        while time.monotonic() < until:
            if group.wait(1):  # a node has come meanwhile
                return
            said = _scaling().autoscaling_state
            seen = said.last_seen_cluster_resource_state_version
            if seen > before.cluster_resource_state.cluster_resource_state_version:
                if all(
                    group.id.hex() not in g.details for g in said.infeasible_gang_resource_requests
                ):
                    return
                break
    finally:
        remove_placement_group(group)
    also = ", and its autoscaler brings no node for it" if seen else ""
    check_fits(resources, places(), "the cluster", also)


def _scaling() -> Any:
    """What the autoscaler has told the cluster's head, as Ray's GetClusterStatusReply."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    reply = GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    return reply


def check_shared(store: str) -> None:
    """See that a store's folder is one and the same on all nodes that are there.

    Raises:
        LaunchError: some do not see what is written here; says which.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if "://" in store:
        return
    mark = Path(store).expanduser().absolute() / f".seen-{uuid.uuid4().hex}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        asked = {
            ray.remote(num_cpus=0)(os.path.exists)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(str(mark)): node["NodeManagerAddress"]
            for node in ray.nodes() if node["Alive"]
        }  # fmt: skip
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        blind = sorted(asked[answer] for answer in answered if not ray.get(answer))
    finally:
        mark.unlink()
    if blind:
        raise LaunchError(
            f"store: {mark.parent} must be a folder that all nodes share, or s3://bucket/prefix, "
            f"but what is written here is not seen by {', '.join(blind)}"
        )


def fits(resources: Resources, there: Sequence[Place], *names: str) -> bool:
    """Whether some node has all that a trial needs, or as much as it needs of what is named."""
    asked = _asked(resources)
    return any(all(p.get(name, 0) >= asked[name] for name in names or asked) for p in there)


def check_fits(resources: Resources, there: Sequence[Place], where: str, also: str = "") -> None:
    """Hold what a trial needs against what single nodes have; it would wait for ever.

    Args:
        also: what there is to say of nodes that might come; then all that is needed is named.

    Raises:
        LaunchError: there is no node for it; says what there is.
    """
    if fits(resources, there):
        return
    lacking = [name for name in _asked(resources) if not fits(resources, there, name)]
    field, need = _field(lacking[0] if lacking and not also else "", resources)
    hint = "; resources.gpu=0 runs on CPUs" if field == "resources.gpu" else ""
    raise LaunchError(f"{field}: a trial needs {need}, but {where} has {_told(there)}{also}{hint}")


def _asked(resources: Resources) -> dict[str, float]:
    """What a trial asks of a node, in Ray's names."""
    return {
        name if name.startswith(GPU_TYPE) else name.upper(): need
        for name, need in tune_resources(resources).items()
        if need
    }


def _field(name: str, resources: Resources) -> tuple[str, str]:
    """The study's field behind a resource of Ray's, and what it asks; "" are all at once."""
    if name.startswith(GPU_TYPE):
        return "resources.gpu_type", str(resources.gpu_type)
    if name:
        return f"resources.{name.lower()}", f"{getattr(resources, name.lower()):g} {name} on a node"
    told = {"CPU": resources.cpu, "GPU": resources.gpu}
    kind = f" ({resources.gpu_type})" if resources.gpu_type else ""
    return "resources", ", ".join(f"{n:g} {what}" for what, n in told.items()) + f"{kind} on a node"


def _told(there: Sequence[Place]) -> str:
    """Nodes as a user reads them, in whatever order they joined: `2 x (8 CPU, 1 GPU, A10G)`."""
    each = Counter(
        ", ".join(
            [f"{place.get(name, 0):g} {name}" for name in ("CPU", "GPU")]
            + sorted(name.removeprefix(GPU_TYPE) for name in place if name.startswith(GPU_TYPE))
        )
        for place in there
    )
    return " and ".join(f"{each[told]} x ({told})" for told in sorted(each)) or "no nodes"


def _no_answer(address: str, reason: str) -> LaunchError:
    return LaunchError(f"--address: no Ray cluster answers at {address}: {_short(reason)}")


def _reason(log: str) -> str:
    """What a traceback comes down to; of a token, Ray's last error says nothing."""
    if refused := re.search(r"AuthenticationError: (.+)", log):
        return refused[1]
    if "when trying to resolve node to connect to" in log:
        return "call this on one of its nodes, for this machine is none"
    return re.split(r"^[\w.]*(?:error|exception): ", log, flags=re.I | re.M)[-1]


def _short(reason: str) -> str:
    return textwrap.shorten(reason, 360, placeholder=" ...")
