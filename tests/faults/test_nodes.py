"""Workers and nodes of a cluster that are killed, or told to leave, in the middle of a sweep."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from counted import AT_MOST, INTERVAL
from swept import LTH, STEPS, Swept, is_alive, kill, parent, session, wait_for

from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.run.queue import RETRIES
from sweeps.studies.reader import parse_study
from tracking.publish.publisher import open_publisher

pytestmark = pytest.mark.ray

LEAVE = Path(__file__).parents[2] / "sweeps" / "clusters" / "leave.sh"
HOURS = 5, -5
"""By which the clocks of the nodes are ahead."""


class Nodes:
    """A cluster of two nodes of one CPU each, whose clocks are ten hours apart."""

    def __init__(self, clusters: Callable[..., Any], folder: Path) -> None:
        shutil.copy(Path(__file__).with_name("clock.py"), folder / "sitecustomize.py")
        path = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
        clocks = [{"PYTHONPATH": path, "CLOCK_AHEAD": str(3600 * hours)} for hours in HOURS]
        self._cluster = clusters(*clocks)
        self.address = self._cluster.address
        self._clocks = dict(zip(self._cluster.worker_nodes, clocks, strict=True))

    def raylets(self) -> list[int]:
        return [raylet_of(node) for node in self._clocks]

    def of(self, worker: int) -> Any:
        """The node on which a worker runs."""
        return next(node for node in self._clocks if raylet_of(node) == parent(worker))

    def kill(self, node: Any) -> None:
        """End all of a node's processes; another comes in its place."""
        self._cluster.remove_node(node, allow_graceful=False)
        self._replace(node)

    def stop(self, node: Any) -> None:
        """SIGTERM of a node's raylet, as `ray stop` begins; another comes in its place."""
        kill(raylet_of(node), signal.SIGTERM)
        self._cluster.remove_node(node)
        self._replace(node)

    def _replace(self, node: Any) -> None:
        clock = self._clocks.pop(node)
        self._clocks[self._cluster.add_node(num_cpus=1, env_vars=clock)] = clock


@pytest.fixture(scope="module")
def nodes(clusters: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Nodes:
    """For all tests here."""
    return Nodes(clusters, tmp_path_factory.mktemp("clocks"))


def raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


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


@pytest.mark.mlflow
def test_trials_that_kill_their_worker_raise_or_diverge_are_given_up_and_the_others_finish(
    nodes: Nodes, study: Callable[..., Swept], undisturbed: Swept
) -> None:
    """One that dies is tried again, and may then finish; one whose code or loss is at fault is not,
    and says why wherever one looks."""
    cells = [
        {"model.name": f"counted:{name}", "seed": seed, "train.lr": lr}
        for name, seed, lr in [
            ("net", 0, 0.01), ("dying", 0, 0.01), ("raising", 0, 0.01), ("dying_once", 0, 0.01),
            ("net", 0, 1e30), ("net", 1, 0.01),
        ]
    ]  # fmt: skip
    swept = study(nodes.address, axes={"cell": cells}, tracking={"uri": "sqlite:///mlflow.db"})
    assert swept.sweep() == 1, swept.log()
    deaths = (swept.folder / "deaths.txt").read_text().split()
    assert len(deaths) == len(set(deaths)) == 1 + RETRIES
    assert (swept.folder / "died.txt").exists()
    assert len((swept.folder / "tries.txt").read_text().split()) == 1
    fault = "RuntimeError: no such layer at https://***@host/x"
    healthy, dying, raising, dying_once, diverging, other = (
        trial.id for trial in make_plan(parse_study(swept.fields)).trials
    )
    told = swept.status()
    reasons = dict(told["failures"])
    assert reasons.keys() == {dying, raising, diverging}
    assert reasons[raising] == fault
    assert reasons[dying].startswith("its worker died: Worker unexpectedly exits")
    assert "the loss is not finite at step" in reasons[diverging]
    assert [told[n] for n in ("trials", "done", "running", "failed", "waiting")] == [6, 3, 0, 3, 0]
    failed = [line for line in swept.log().splitlines() if line.startswith("failed ")]
    assert set(failed) == {f"failed {name}: {reason}" for name, reason in reasons.items()}
    assert f"failed   {raising}: {fault}" in swept.lth("status", "hit")
    for noise in ("Traceback", "\tERROR", "hunter22"):
        assert noise not in swept.log()
    publisher = open_publisher(f"sqlite:///{swept.folder}/mlflow.db", "hit", "a study")
    ended = {
        run.tags.get("lth.failure") for run in publisher.runs().values() if run.status == "FAILED"
    }
    assert ended == set(reasons.values())
    own = ("trial", "level", "branch", "training_digest", "density", "final_test_accuracy")
    rows, expected = (
        {tuple(row[column] for column in own) for row in each.report()}
        for each in (swept, undisturbed)
    )
    assert {trial for trial, *_ in rows} == {healthy, dying_once, other}
    assert {row for row in rows if row[0] != dying_once} == {
        row for row in expected if row[0] in (healthy, other)
    }


def test_workers_and_nodes_that_die_or_leave_cost_no_more_than_a_checkpoint_interval(
    nodes: Nodes, study: Callable[..., Swept], unharmed: Callable[..., None],
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """Each fault in turn in one sweep; what is told to leave loses no step. At last all nodes leave,
    as Slurm ends a job, and none is left for another test."""
    swept = study(nodes.address, checkpoint_minutes=INTERVAL / 60)
    driver = swept.start()
    met = dict[str, str]()

    @contextmanager
    def fault(name: str) -> Iterator[int]:
        """A worker that is in the middle of a training, to be ended in the context; the other
        trainings stay where they are until another worker has taken its place."""
        with swept.held(finished=2) as worker:
            met[name] = swept.in_flight()[worker]
            known = {step.worker for step in swept.steps()}
            yield worker
        wait_for(lambda: not is_alive(worker), lambda: f"a worker to end: {name}")
        with swept.paused():
            wait_for(lambda: swept.in_flight().keys() - known, lambda: f"another: {swept.log()}")

    with fault("SIGKILL of a worker") as worker:
        kill(worker)
    with fault("SIGTERM of a worker") as worker:
        kill(worker, signal.SIGTERM)
    with fault("SIGKILL of a node") as worker:
        nodes.kill(nodes.of(worker))
    with fault("SIGTERM of a raylet alone") as worker:  # which leave.sh is for
        nodes.stop(nodes.of(worker))
    with fault("a node told to leave") as worker:
        node = nodes.of(worker)
        leaving = leave(swept, raylet_of(node))
        swept.release()
        assert left(leaving) == ""
        begun = len(swept.steps())
        wait_for(lambda: len(swept.steps()) > begun + STEPS, lambda: "the other node to go on")
        nodes.stop(node)
    with swept.held(finished=2):
        in_flight = swept.in_flight()
        leaving = leave(swept, *nodes.raylets())
    assert left(leaving) == ""
    assert swept.finished() < 4 * 5
    kill(driver.pid)
    driver.wait()
    assert swept.sweep("--serial") == 0, swept.log()

    again = {name: swept.taken_again(training) for name, training in met.items()}
    for name, steps in again.items():
        record_property("fault", (name, 4, 0, 0, steps))
    assert again.pop("SIGTERM of a worker") == 0
    assert again.pop("a node told to leave") == 0
    assert sum(map(swept.taken_again, in_flight.values())) == 0
    assert max(again.values()) <= AT_MOST, again
    assert not open_store(str(swept.store)).digests("checkpoints"), "they are over"
    unharmed(
        "workers and nodes that die or leave", swept, steps_again=sum(again.values()),
        begun_again=len(met) + len(in_flight),
    )  # fmt: skip
    store = open_store(str(swept.store))
    entries = [store.get("trainings", digest) for digest in store.digests("trainings")]
    times = [entry.meta["finished_at"] for entry in entries if entry]
    assert max(times) - min(times) > 3600 * 9, "nodes of both clocks train"
