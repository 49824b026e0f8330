"""A sweep on this machine that is stopped, or whose driver is killed, and called again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from swept import PATIENCE, STEPS, Swept, kill, session, sound, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.mlflow]


def test_stopped_sweep_loses_no_step_and_a_killed_one_the_trainings_in_flight(
    study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """The same command goes on: at once, whatever the last one's Ray still trains; and whether
    anything is left to be handed out or not: of 20 trainings, 16 are of all 4 trials."""
    swept = study(tracking={"uri": "sqlite:///mlflow.db"})
    driver = swept.start()
    with swept.held(finished=3):
        wait_for(lambda: swept.status()["running"], swept.log)
        told = swept.status()
        assert (told["state"], told["process"]) == ("running", driver.pid)
        assert sum(told[name] for name in ("done", "running", "failed", "waiting")) == 4
        stopped = [*swept.in_flight().values()]
        kill(driver.pid, signal.SIGTERM)
    check_stopped(swept, driver.wait(PATIENCE), 128 + signal.SIGTERM)
    wait_for(lambda: not session(driver.pid), lambda: "Ray to be gone")

    driver = swept.start()
    with swept.held(finished=6):
        kill(driver.pid)
        driver.wait(PATIENCE)
    assert "hit: sweep was killed or cut off" in swept.lth("status", "hit")
    kept = {entry: entry.read_bytes() for entry in swept.entries()}

    driver = swept.start()
    with swept.held(finished=16):
        stopped += swept.in_flight().values()
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    check_stopped(swept, driver.wait(PATIENCE), 128 + signal.SIGINT)
    wait_for(lambda: not session(driver.pid), lambda: "Ray to be gone")

    assert swept.sweep("--serial") == 0, swept.log()
    assert run_states(swept) == {"FINISHED"}
    assert kept == {entry: entry.read_bytes() for entry in kept}
    assert sound(swept)
    assert sum(map(swept.taken_again, stopped)) == 0
    # The killed sweep's two workers end some time later. One may then have taken a training's last
    # step, but not stored it; it counts as a level here.
    unharmed(
        "SIGTERM, SIGKILL and Ctrl-C of the driver", swept, levels_again=2, steps_again=2 * STEPS,
        begun_again=4 + 2,
    )  # fmt: skip


def check_stopped(swept: Swept, code: int, expected: int) -> None:
    """Check what a stopped sweep says, and what the store has of it."""
    log = swept.log()
    assert code == expected, log
    assert log.splitlines()[-1] == "stopped; `lth sweep hit.yaml` resumes it", log
    for noise in ("Traceback", "ERROR", "SIGTERM", "raylet", "failed", "report:"):
        assert noise not in log
    states = run_states(swept)
    assert "KILLED" in states
    assert states <= {"KILLED", "FINISHED"}
    told = swept.status()
    assert (told["state"], told["failures"]) == ("stopped", [])
    kept = list(swept.store.glob("checkpoints/*/*"))
    assert {path.name.partition("-")[0] for path in kept} == {"entry.json", "run"}, kept


def run_states(swept: Swept) -> set[str]:
    """States of a study's runs in MLflow: its own, its cells', its trials'."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{swept.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("hit")
    assert experiment
    return {run.info.status for run in client.search_runs([experiment.experiment_id])}
