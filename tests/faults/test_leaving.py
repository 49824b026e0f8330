"""Nodes that are told to leave before their Ray is stopped, as platforms do that take them away."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swept import LTH, STEPS, Swept, kill, parent, session, wait_for

from lth_core.store import open_store

pytestmark = pytest.mark.ray

LEAVE = Path(__file__).parents[2] / "sweeps" / "clusters" / "leave.sh"


def leave(swept: Swept, *raylets: int) -> subprocess.Popen[str]:
    """Tell nodes to leave; returns once their workers were told, who may be held as they train."""
    env = swept.env | {"PATH": f"{LTH.parent}:{os.environ['PATH']}"}
    leaving = subprocess.Popen(
        ["bash", LEAVE, *map(str, raylets)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip

    def told() -> bool:  # the script sleeps from one telling to the next
        asleep = list(session(leaving.pid).values()).count("sleep")
        return asleep == len(raylets) or leaving.poll() is not None

    wait_for(told, lambda: "leave.sh to tell the workers")
    return leaving


def left(leaving: subprocess.Popen[str]) -> str:
    """What leave.sh had to say, once nobody is left."""
    _, said = leaving.communicate(timeout=300)
    assert leaving.returncode == 0, said
    return said


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
    with swept.held(finished=3) as worker:
        node = node_of(cluster, worker)
        leaving = leave(swept, raylet_of(node))
    assert left(leaving) == ""
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
    with swept.held(finished=3) as worker:
        stop(cluster, node_of(cluster, worker))
        wait_for(lambda: not Path(f"/proc/{worker}").exists(), lambda: "the worker to end")
    assert swept.wait(driver) == 0, swept.log()
    unharmed("SIGTERM of a raylet alone", swept, steps_again=STEPS - 1)


def test_cluster_whose_nodes_are_all_told_to_leave_goes_on_another_day_from_the_same_steps(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """As Slurm ends a job."""
    swept = study(cluster.address)
    driver = swept.start()
    nodes = list(cluster.worker_nodes)
    with swept.held(finished=3):
        leaving = leave(swept, *map(raylet_of, nodes))
    assert left(leaving) == ""
    assert swept.finished() < 4 * 5
    kill(driver.pid)
    driver.wait()
    stop(cluster, *nodes)
    assert swept.sweep() == 0, swept.log()
    unharmed("all nodes told to leave, then the command again", swept, steps_again=0)
