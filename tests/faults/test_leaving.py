"""Nodes that are told to leave before their Ray is stopped, as platforms do that take them away."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swept import LTH, STEPS, Swept, kill, parent, wait_for

from lth_core.store import open_store

pytestmark = pytest.mark.ray

LEAVE = Path(__file__).parents[2] / "sweeps" / "clusters" / "leave.sh"


def leave(swept: Swept, *raylets: int) -> str:
    """Tell nodes to leave; what the script had to say."""
    env = swept.env | {"PATH": f"{LTH.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", LEAVE, *map(str, raylets)], env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def node_of(cluster: Any, worker: int) -> Any:
    """The node on which a worker runs."""
    return next(node for node in cluster.worker_nodes if raylet_of(node) == parent(worker))


def stop(cluster: Any, *nodes: Any) -> None:
    """SIGTERM of their raylets, as `ray stop` begins; others come in their place."""
    for node in nodes:
        kill(raylet_of(node), signal.SIGTERM)
        cluster.remove_node(node)
        cluster.add_node(num_cpus=1)


def test_node_that_is_told_to_leave_loses_no_step(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study(cluster.address)
    driver = swept.start()
    worker = swept.worker(finished=3)
    node = node_of(cluster, worker)
    assert leave(swept, raylet_of(node)) == ""
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), lambda: "the worker to end")
    begun = len(swept.steps())
    wait_for(lambda: len(swept.steps()) > begun + STEPS, lambda: "the other node to go on")
    stop(cluster, node)
    assert swept.wait(driver) == 0, swept.log()
    unharmed("a node told to leave", swept, steps_again=0)
    assert not open_store(str(swept.store)).digests("checkpoints")


def test_raylet_that_is_told_to_end_alone_takes_the_trainings_on_its_node_with_it(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """What leave.sh is for."""
    swept = study(cluster.address)
    driver = swept.start()
    stop(cluster, node_of(cluster, swept.worker(finished=3)))
    assert swept.wait(driver) == 0, swept.log()
    unharmed("SIGTERM of a raylet alone", swept, steps_again=STEPS - 1)


def test_cluster_whose_nodes_are_all_told_to_leave_goes_on_another_day_from_the_same_steps(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """As Slurm ends a job."""
    swept = study(cluster.address)
    driver = swept.start()
    swept.worker(finished=3)
    nodes = list(cluster.worker_nodes)
    assert leave(swept, *map(raylet_of, nodes)) == ""
    assert swept.finished() < 4 * 5
    kill(driver.pid)
    driver.wait()
    stop(cluster, *nodes)
    assert swept.sweep() == 0, swept.log()
    unharmed("all nodes told to leave, then the command again", swept, steps_again=0)
