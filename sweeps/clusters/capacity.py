"""Capacity of a cluster for a trial: of its nodes, and of a node that its autoscaler adds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lth_core.errors import LaunchError
from sweeps.studies.schema import Resources

AUTOSCALER = 15
"""Seconds in which an autoscaler must read a request; it reads requests every five seconds."""

PENDING = 16
"""Least number of trials requested of a cluster at once: its autoscaler counts waiting ones."""

GPU_TYPE = "accelerator_type:"
"""Ray's prefix of a GPU's name as a resource."""

Place = Mapping[str, float]
"""Resources of a node, in Ray's names: CPU, GPU, accelerator_type:A10G, ..."""


def tune_resources(resources: Resources) -> dict[str, float]:
    """Resources of a trial, for Ray Tune."""
    needs = {"cpu": resources.cpu, "gpu": resources.gpu}
    if resources.gpu_type:
        needs[GPU_TYPE + resources.gpu_type] = 0.001  # as Ray's own accelerator_type option
    return needs


def concurrency(resources: Resources) -> int:
    """Number of trials that the present nodes can run at once; at least 1."""
    import ray

    there, needs = ray.cluster_resources(), {"CPU": resources.cpu, "GPU": resources.gpu}
    return max(1, int(min(there.get(name, 0) / need for name, need in needs.items() if need)))


def places() -> list[Place]:
    """The joined cluster's nodes."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_brought(resources: Resources) -> None:
    """Check that the autoscaler adds a node for a trial, by a request such as Tune's.

    Raises:
        LaunchError: it does not, or there is no autoscaler.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([_needs(resources)])
    before, seen = _scaling(), 0
    until = time.monotonic() + AUTOSCALER
    try:
        while time.monotonic() < until:
            if group.wait(1):  # a node has joined since
                return
            state = _scaling().autoscaling_state
            seen = state.last_seen_cluster_resource_state_version
            if seen > before.cluster_resource_state.cluster_resource_state_version:
                if all(
                    group.id.hex() not in g.details for g in state.infeasible_gang_resource_requests
                ):
                    return
                break
    finally:
        remove_placement_group(group)
    also = ", and its autoscaler brings no node for it" if seen else ""
    check_fits(resources, places(), "the cluster", also)


def _scaling() -> Any:
    """The autoscaler's latest report to the cluster's head, as Ray's GetClusterStatusReply."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    reply = GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    return reply


def fits(resources: Resources, there: Sequence[Place], *names: str) -> bool:
    """Whether a node has all resources that a trial needs, or the named ones of them."""
    needs = _needs(resources)
    return any(all(p.get(name, 0) >= needs[name] for name in names or needs) for p in there)


def check_fits(resources: Resources, there: Sequence[Place], where: str, also: str = "") -> None:
    """Check that one node has the resources that a trial needs; else the trial would never start.

    Args:
        also: a remark on nodes that might be added; the message then names all needed resources.

    Raises:
        LaunchError: no node has it; the message lists the nodes.
    """
    if fits(resources, there):
        return
    lacking = [name for name in _needs(resources) if not fits(resources, there, name)]
    field, need = _field(lacking[0] if lacking and not also else "", resources)
    hint = "; resources.gpu=0 runs on CPUs" if field == "resources.gpu" else ""
    raise LaunchError(
        f"{field}: a trial needs {need}, but {where} has {_in_words(there)}{also}{hint}"
    )


def _needs(resources: Resources) -> dict[str, float]:
    """Resources that a trial needs of a node, in Ray's names."""
    return {
        name if name.startswith(GPU_TYPE) else name.upper(): need
        for name, need in tune_resources(resources).items()
        if need
    }


def _field(name: str, resources: Resources) -> tuple[str, str]:
    """The study's field for a resource of Ray's, and its value in words; "" means all resources."""
    if name.startswith(GPU_TYPE):
        return "resources.gpu_type", str(resources.gpu_type)
    if name:
        return f"resources.{name.lower()}", f"{getattr(resources, name.lower()):g} {name} on a node"
    needs = {"CPU": resources.cpu, "GPU": resources.gpu}
    kind = f" ({resources.gpu_type})" if resources.gpu_type else ""
    return "resources", ", ".join(
        f"{n:g} {what}" for what, n in needs.items()
    ) + f"{kind} on a node"


def _in_words(there: Sequence[Place]) -> str:
    """Nodes in words, sorted: `2 x (8 CPU, 1 GPU, A10G)`."""
    each = Counter(
        ", ".join(
            [f"{place.get(name, 0):g} {name}" for name in ("CPU", "GPU")]
            + sorted(name.removeprefix(GPU_TYPE) for name in place if name.startswith(GPU_TYPE))
        )
        for place in there
    )
    return " and ".join(f"{each[node]} x ({node})" for node in sorted(each)) or "no nodes"
