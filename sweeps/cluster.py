"""Ray, for the duration of a sweep: this machine's own, or a cluster's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
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

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Secrets that Tune would carry from here to the workers."""

SHORT = {
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # a wrong token is refused at once; 20 times, otherwise
    "RAY_gcs_server_request_timeout_seconds": "10",  # to find out that this is no node of it
}

PATIENCE = 25
"""Seconds that a cluster has to answer."""

MOST_LANES = 4096
"""Where an autoscaler knows no limit."""

GPU_TYPE = "accelerator_type:"
"""What Ray puts before a GPU's name to make a resource of it."""

_JOIN = """
import socket, sys
host, _, port = sys.argv[1].removeprefix("ray://").rpartition(":")
if host and port.isdigit():
    socket.create_connection((host.strip("[]"), int(port)), 10).close()
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
"""

Place = Mapping[str, float]
"""What a node has, in Ray's names: CPU, GPU, accelerator_type:A10G, ..."""


@contextmanager
def joined(address: str | None, resources: Resources, store: str) -> Iterator[None]:
    """Ray, started on this machine or joined at an address, let go of afterwards.

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
    try:
        # "local": not any Ray that happens to run here.
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise _no_answer(address or "this machine", str(error)) from None
    try:
        check_fits(resources, places(), "this machine" if address is None else "the cluster")
        if address:
            check_shared(store)
        yield
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """Join a cluster in a process of its own first: Ray waits for minutes, or aborts.

    Raises:
        LaunchError: it cannot be joined from here within ``PATIENCE``.
    """
    env = os.environ | QUIET | SHORT
    try:
        subprocess.run(
            [sys.executable, "-c", _JOIN, address], env=env, timeout=PATIENCE, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _no_answer(address, f"nothing that speaks Ray within {PATIENCE} s") from None
    except subprocess.CalledProcessError as error:
        raise _no_answer(address, _reason(error.stderr)) from None


def tune_resources(resources: Resources) -> dict[str, float]:
    """What a trial asks of Ray Tune."""
    asked = {"cpu": resources.cpu, "gpu": resources.gpu}
    if resources.gpu_type:
        asked[GPU_TYPE + resources.gpu_type] = 0.001  # as Ray's own accelerator_type option
    return asked


def lanes(resources: Resources) -> int:
    """Trials that may run side by side, on what an autoscaler may still bring too; at least one."""
    import ray
    from ray._private.state import state

    asked = {"CPU": resources.cpu, "GPU": resources.gpu}
    both = (ray.cluster_resources(), state.get_max_resources_from_cluster_config() or {})
    room = [
        min(there.get(name, 0) / need for name, need in asked.items() if need) for there in both
    ]
    return max(1, min(int(max(room)), MOST_LANES))


def places() -> list[Place]:
    """The joined cluster's nodes, and those that its autoscaler may still bring."""
    import ray
    from ray._private.state import state

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    config = state.get_cluster_config()
    groups = config.node_group_configs if config else []
    return nodes + [dict(group.resources) for group in groups if group.max_count]


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


def check_fits(resources: Resources, there: Sequence[Place], where: str) -> None:
    """Hold what a trial needs against what single nodes have; it would wait for ever.

    Raises:
        LaunchError: there is no node for it; says what there is.
    """
    asked = {
        name if name.startswith(GPU_TYPE) else name.upper(): need
        for name, need in tune_resources(resources).items()
    }

    def fits(place: Place, names: Sequence[str]) -> bool:
        return all(place.get(name, 0) >= asked[name] for name in names)

    if any(fits(place, list(asked)) for place in there):
        return
    lacking = [name for name in asked if not any(fits(place, [name]) for place in there)]
    field, need = _field(lacking[0] if lacking else "", resources)
    hint = "; resources.gpu=0 runs on CPUs" if field == "resources.gpu" else ""
    raise LaunchError(f"{field}: a trial needs {need}, but {where} has {_told(there)}{hint}")


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
