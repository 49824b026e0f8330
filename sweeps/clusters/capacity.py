"""Whether a trial has room on a cluster: on the nodes that are there, or on one that its autoscaler
will bring.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lth_core.errors import LaunchError
from sweeps.studies.schema import Resources

AUTOSCALER = 15
"""Seconds in which an autoscaler must have looked at what is asked for; it does every five."""

PENDING = 16
"""Trials that at least are asked of a cluster at once: its autoscaler goes by what is waiting."""

GPU_TYPE = "accelerator_type:"
"""What Ray puts before a GPU's name to make a resource of it."""

Place = Mapping[str, float]
"""What a node has, in Ray's names: CPU, GPU, accelerator_type:A10G, ..."""


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
