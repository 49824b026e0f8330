"""Check that a store's folder is the same on all nodes of a cluster."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lth_core.errors import LaunchError
from lth_core.store.folder import FolderFiles

ANSWER_TIMEOUT = 60
"""Seconds that nodes have to answer. Each starts a process, which takes long on a loaded node."""

Answer = tuple[str, bool | None]
"""A node's address, and whether it sees a file that this machine wrote; None if unanswered."""


def check_shared(store: str) -> None:
    """Check that all present nodes see a file that this machine writes into a store's folder.

    Raises:
        StoreError: the file cannot be written here.
        LaunchError: nodes do not see it, or do not answer; the message names them.
    """
    if "://" in store:
        return
    files, name = FolderFiles(store), f".seen-{uuid.uuid4().hex}"
    files.write(name, b"", durable=False)
    try:
        answers = _answers(files.root / name)
    finally:
        files.delete(name)
    check_node_answers(files.root, answers)


def check_node_answers(folder: Path, answers: Iterable[Answer]) -> None:
    """Check the nodes' answers.

    Raises:
        LaunchError: nodes do not see the file, or did not answer; the message names them.
    """
    by_node = sorted(answers, key=str)
    blind = ", ".join(node for node, sees in by_node if sees is False)
    silent = ", ".join(node for node, sees in by_node if sees is None)
    faults = [f"files written here are not seen by {blind}"] if blind else []
    if silent:
        faults.append(
            f"no answer within {ANSWER_TIMEOUT} s from {silent} (of {len(by_node)} nodes)"
        )
    if faults:
        raise LaunchError(
            f"store: {folder} must be a folder that all nodes share, or s3://bucket/prefix, "
            f"but {' and '.join(faults)}"
        )


def _answers(file: Path) -> list[Answer]:
    """Answers of all present nodes: whether they see a file."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(os.path.exists)
    requests = {
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(str(file)): node["NodeManagerAddress"]
        for node in ray.nodes() if node["Alive"]
    }  # fmt: skip
    answered, _ = ray.wait(list(requests), num_returns=len(requests), timeout=ANSWER_TIMEOUT)
    seen = dict[object, bool]()
    for answer in answered:
        with suppress(RayError):  # the node has ended since
            seen[answer] = ray.get(answer)
    return [(node, seen.get(answer)) for answer, node in requests.items()]
