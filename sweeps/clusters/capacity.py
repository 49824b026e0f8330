"""Capacity of a cluster for trials: on its nodes, and on nodes that its autoscaler adds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lth_core.errors import LaunchError
from sweeps.studies.schema import Resources

AUTOSCALER_TIMEOUT = 15
"""Seconds that an autoscaler has to accept a request; it reads requests every five seconds."""

LEAST_REQUESTED = 16
"""Least number of trials requested from a cluster at once: its autoscaler counts waiting ones."""

GPU_TYPE = "accelerator_type:"
"""Ray's prefix of a GPU's name as a resource."""

NodeResources = Mapping[str, float]
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

    total, needs = ray.cluster_resources(), {"CPU": resources.cpu, "GPU": resources.gpu}
    return max(1, int(min(total.get(name, 0) / need for name, need in needs.items() if need)))


def node_resources() -> list[NodeResources]:
    """Resources of each present node of the joined cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_autoscaler(resources: Resources) -> None:
    """Check that the autoscaler would add a node for a trial, by a request such as Tune's.

    Raises:
        LaunchError: the autoscaler does not accept the request, or there is none.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([_needs(resources)])
    before, seen = _scaling().cluster_resource_state.cluster_resource_state_version, 0
    deadline = time.monotonic() + AUTOSCALER_TIMEOUT
    try:
        while time.monotonic() < deadline:
            if group.wait(1):  # a node has joined since
                return
            state = _scaling().autoscaling_state
            seen = state.last_seen_cluster_resource_state_version
            if seen > before:
                if all(
                    group.id.hex() not in g.details for g in state.infeasible_gang_resource_requests
                ):
                    return
                break
    finally:
        remove_placement_group(group)
    remark = ", and its autoscaler adds no node for it" if seen else ""
    check_fits(resources, node_resources(), "the cluster", remark)


def _scaling() -> Any:
    """The autoscaler's latest report to the cluster's head, as Ray's GetClusterStatusReply."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    reply = GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    return reply


def fits(resources: Resources, nodes: Sequence[NodeResources], *names: str) -> bool:
    """Whether some node has all resources that a trial needs, or those of the given names."""
    needs = _needs(resources)
    return any(all(node.get(name, 0) >= needs[name] for name in names or needs) for node in nodes)


def check_fits(
    resources: Resources, nodes: Sequence[NodeResources], where: str, remark: str = ""
) -> None:
    """Check that some node has the resources that a trial needs; else it would never start.

    Args:
        remark: remark on nodes that may be added; with it, the message names all resources needed.

    Raises:
        LaunchError: no node has them; the message lists the nodes.
    """
    if fits(resources, nodes):
        return
    lacking = [name for name in _needs(resources) if not fits(resources, nodes, name)]
    field, need = _field(lacking[0] if lacking and not remark else "", resources)
    hint = "; resources.gpu=0 runs on CPUs" if field == "resources.gpu" else ""
    raise LaunchError(
        f"{field}: a trial needs {need}, but {where} has {_nodes_text(nodes)}{remark}{hint}"
    )


def _needs(resources: Resources) -> dict[str, float]:
    """Resources that a trial needs on a node, in Ray's names."""
    return {
        name if name.startswith(GPU_TYPE) else name.upper(): need
        for name, need in tune_resources(resources).items()
        if need
    }


def _field(name: str, resources: Resources) -> tuple[str, str]:
    """The study's field for a resource of Ray's, and its value in words; "" for all resources."""
    if name.startswith(GPU_TYPE):
        return "resources.gpu_type", str(resources.gpu_type)
    if name:
        return f"resources.{name.lower()}", f"{getattr(resources, name.lower()):g} {name} on a node"
    needs = {"CPU": resources.cpu, "GPU": resources.gpu}
    kind = f" ({resources.gpu_type})" if resources.gpu_type else ""
    return "resources", ", ".join(
        f"{need:g} {name}" for name, need in needs.items()
    ) + f"{kind} on a node"


def _nodes_text(nodes: Sequence[NodeResources]) -> str:
    """Nodes as text, sorted: `2 x (8 CPU, 1 GPU, A10G)`."""
    counts = Counter(
        ", ".join(
            [f"{node.get(name, 0):g} {name}" for name in ("CPU", "GPU")]
            + sorted(name.removeprefix(GPU_TYPE) for name in node if name.startswith(GPU_TYPE))
        )
        for node in nodes
    )
    return " and ".join(f"{counts[text]} x ({text})" for text in sorted(counts)) or "no nodes"
