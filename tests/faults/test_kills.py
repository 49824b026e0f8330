"""Processes and nodes that die in the middle of a sweep."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counted import PAUSE
from swept import FIELDS, PATIENCE, STEPS, Swept, kill, parent, timeless, wait_for

from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.run.queue import RETRIES
from sweeps.studies.reader import parse_study
from tracking.publish.publisher import open_publisher

pytestmark = pytest.mark.ray

ONE_IN_FLIGHT = {"steps_again": STEPS - 1, "begun_again": 1}
"""What is trained again at most when a process dies in the middle of a training."""
TWO_IN_FLIGHT = {"levels_again": 2, "steps_again": 2 * STEPS, "begun_again": 2}
"""The same when what the two workers hang on dies, and they end some time later.

A worker may then die between a training's last step and its entry in the store. That is still the
level in flight, which alone may be trained twice: nothing is done before the store has it. It is
trained again from its first step to its last, and so counts as a level here. A third one does not
pass, and none that the store has: the tests hold the entries against what they were.
"""


def test_the_command_line_tells_the_report_that_these_tests_compare(undisturbed: Swept) -> None:
    rows = list(map(json.loads, undisturbed.lth("report", "hit", "--json").splitlines()))
    assert rows == json.loads(json.dumps(undisturbed.report()))
    assert len(rows) == 4 * 5
    assert len({timeless(row)["trial"] for row in rows}) == 4


def test_killed_worker_costs_no_more_than_the_training_in_flight(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study(cluster.address)
    driver = swept.start()
    with swept.held(finished=3) as worker:
        kill(worker)
    assert swept.wait(driver) == 0, swept.log()
    unharmed("SIGKILL of a worker", swept, **ONE_IN_FLIGHT)


def test_killed_worker_costs_no_more_than_a_checkpoint_interval(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    interval = 0.1
    swept = study(cluster.address, checkpoint_minutes=interval / 60)
    driver = swept.start()
    with swept.held(finished=3) as worker:
        kill(worker)
    assert swept.wait(driver) == 0, swept.log()
    unharmed(
        "SIGKILL, with checkpoints", swept, steps_again=round(interval / PAUSE) + 2, begun_again=1
    )
    assert not open_store(str(swept.store)).digests("checkpoints"), "they are over"


def test_worker_that_is_told_to_end_goes_on_elsewhere_from_the_same_step(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study(cluster.address)
    driver = swept.start()
    with swept.held(finished=3) as worker:
        kill(worker, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), lambda: "the worker to end")
    assert swept.wait(driver) == 0, swept.log()
    # No step is missing and none was taken twice, yet one training took two networks.
    unharmed("SIGTERM of a worker", swept, steps_again=0, begun_again=1)
    steps = swept.steps()
    assert len({step.training for step in steps}) == 4 * 5 + 1
    last = [step.training for step in steps if step.worker == worker][-1]
    assert 40 < sum(step.training == last for step in steps) < STEPS - 10
    assert not open_store(str(swept.store)).digests("checkpoints"), "they are over"


def test_killed_node_costs_no_more_than_the_trainings_on_it(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study(cluster.address)
    driver = swept.start()
    with swept.held(finished=3) as worker:
        raylet = parent(worker)
        node = next(
            n for n in cluster.worker_nodes if n.all_processes["raylet"][0].process.pid == raylet
        )
        cluster.remove_node(node, allow_graceful=False)
        wait_for(lambda: not Path(f"/proc/{worker}").exists(), lambda: "its worker to end")
    code = swept.wait(driver)
    cluster.add_node(num_cpus=1)
    assert code == 0, swept.log()
    unharmed("SIGKILL of a node", swept, **ONE_IN_FLIGHT)


@pytest.mark.mlflow
def test_trials_that_kill_their_worker_or_raise_are_given_up_and_the_others_finish(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """One that dies is tried again; one whose code is at fault is not, and says why wherever one
    looks."""
    cells = [{"model.name": "counted:net", "seed": seed} for seed in FIELDS["axes"]["seed"]]
    cells[1:1] = [{"model.name": f"counted:{name}", "seed": 0} for name in ("dying", "raising")]
    swept = study(cluster.address, axes={"cell": cells}, tracking={"uri": "sqlite:///mlflow.db"})
    assert swept.sweep() == 1, swept.log()
    deaths = (swept.folder / "deaths.txt").read_text().split()
    assert len(deaths) == len(set(deaths)) == 1 + RETRIES
    assert len((swept.folder / "tries.txt").read_text().split()) == 1
    fault = "RuntimeError: no such layer at https://***@host/x"
    trials = make_plan(parse_study(swept.fields)).trials
    dying, raising = (
        t.id for t in trials if t.spec.model.name in ("counted:dying", "counted:raising")
    )
    told = swept.status()
    reasons = dict(told["failures"])
    assert reasons.keys() == {dying, raising}
    assert reasons[raising] == fault
    assert reasons[dying].startswith("its worker died: Worker unexpectedly exits")
    assert [told[n] for n in ("trials", "done", "running", "failed", "waiting")] == [6, 4, 0, 2, 0]
    failed = [line for line in swept.log().splitlines() if line.startswith("failed ")]
    assert set(failed) == {f"failed {name}: {reason}" for name, reason in reasons.items()}
    assert f"failed   {raising}: {fault}" in swept.lth("status", "hit")
    for noise in ("Traceback", "\tERROR", "hunter22"):
        assert noise not in swept.log()
    publisher = open_publisher(f"sqlite:///{swept.folder}/mlflow.db", "hit", "a study")
    ended = {
        run.tags.get("lth.failure") for run in publisher.runs().values() if run.status == "FAILED"
    }
    assert ended == {fault}
    unharmed("worker that always dies", swept, steps_again=0)


def test_killed_driver_is_told_dead_and_the_same_command_goes_on(
    study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """At once: what the killed sweep's Ray still trains is waited for, not trained beside it."""
    swept = study()
    driver = swept.start()
    with swept.held(finished=1):
        wait_for(lambda: swept.status()["running"], swept.log)
        told = swept.status()
    assert (told["state"], told["process"]) == ("running", driver.pid)
    assert sum(told[name] for name in ("done", "running", "failed", "waiting")) == 4
    with swept.held(finished=4):
        kill(driver.pid)
        driver.wait(PATIENCE)
    assert "hit: was killed or cut off" in swept.lth("status", "hit")
    kept = {entry: entry.read_bytes() for entry in swept.entries()}
    assert swept.sweep() == 0, swept.log()
    assert kept == {entry: entry.read_bytes() for entry in kept}
    unharmed("SIGKILL of the driver", swept, **TWO_IN_FLIGHT)


def test_killed_worker_is_gone_on_with_by_a_node_whose_clock_is_ten_hours_apart(
    clusters: Callable[..., Any],
    study: Callable[..., Swept],
    unharmed: Callable[..., None],
    tmp_path: Path,
) -> None:
    shutil.copy(Path(__file__).with_name("clock.py"), tmp_path / "sitecustomize.py")
    nodes = [{"PYTHONPATH": str(tmp_path), "CLOCK_AHEAD": str(3600 * hours)} for hours in (5, -5)]
    swept = study(clusters(*nodes).address)
    driver = swept.start()
    with swept.held(finished=3) as worker:
        kill(worker)
    assert swept.wait(driver) == 0, swept.log()
    store = open_store(str(swept.store))
    entries = [store.get("trainings", digest) for digest in store.digests("trainings")]
    times = [entry.meta["finished_at"] for entry in entries if entry]
    assert max(times) - min(times) > 9 * 3600, "both nodes train"
    unharmed("SIGKILL, clocks 10 h apart", swept, **ONE_IN_FLIGHT)


def test_two_sweeps_of_the_same_cells_under_other_clocks_train_each_once(
    study: Callable[..., Swept], unharmed: Callable[..., None], tmp_path: Path
) -> None:
    store = str(tmp_path / "lth-store")
    one = study(store=store)
    other = study(store=store, name="other", axes={"seed": [3, 2, 1, 0]})
    for swept, hours in ((one, 5), (other, -5)):
        (swept.folder / "gate").touch()  # however long either takes to start
        shutil.copy(Path(__file__).with_name("clock.py"), swept.folder / "sitecustomize.py")
        swept.env |= {"PYTHONPATH": f"{swept.folder}:{os.environ.get('PYTHONPATH', '')}",
                      "CLOCK_AHEAD": str(3600 * hours)}  # fmt: skip
    drivers = [one.start(), other.start()]
    wait_for(lambda: one.steps() and other.steps(), lambda: "both to train")
    for swept in (one, other):
        (swept.folder / "gate").unlink()
    for swept, driver in zip((one, other), drivers, strict=True):
        assert swept.wait(driver) == 0, swept.log()
        told = swept.lth("status", swept.fields["name"])
        assert "finished" in told.splitlines()[0]
        assert " h ago" not in told
        garbage = swept.lth("store", "gc", store, "--older", "1h", "--dry-run")
        assert garbage == "Nothing to delete.\n"
    unharmed("two sweeps, clocks 10 h apart", one, other, steps_again=0)


def test_dead_head_ends_the_sweep_and_the_same_command_goes_on_with_another(
    clusters: Callable[..., Any], study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    dies = clusters()
    swept = study(dies.address)
    swept.env["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"  # not a minute
    driver = swept.start()
    with swept.held(finished=3):
        dies.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=False)
    assert swept.wait(driver) not in (0, 2), swept.log()
    swept.address = clusters().address
    kept = {entry: entry.read_bytes() for entry in swept.entries()}
    assert swept.sweep() == 0, swept.log()
    assert kept == {entry: entry.read_bytes() for entry in kept}
    unharmed("restart of the head", swept, **TWO_IN_FLIGHT)
