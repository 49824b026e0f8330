"""An MLflow that is down, slow or broken: no sweep waits for it, and nothing is doubled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from servers_mlflow import FaultyServer, contents
from swept import Swept, wait_for

from sweeps.plan.plan import make_plan
from sweeps.report.sync import sync
from sweeps.studies.reader import parse_study

pytestmark = [pytest.mark.ray, pytest.mark.mlflow]

FAULTS = {
    "down": "MLflow down at the start",
    "broken": "MLflow answers 500",
    "slow": "MLflow slow, 5 s a call",
}
LONG = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "600",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "600",
}
"""Workers that wait for an answer in which a sweep is given up here."""


@pytest.fixture
def faulty_servers(server: str) -> Iterator[dict[str, FaultyServer]]:
    """One real server, with a proxy of each fault before it."""
    with ExitStack() as stack:
        made = {fault: stack.enter_context(FaultyServer(server)) for fault in FAULTS}
        for fault, each in made.items():
            each.fault = fault
            threading.Thread(target=each.serve_forever, daemon=True).start()
            stack.callback(each.shutdown)
        yield made


def test_no_sweep_waits_for_mlflow_and_sync_brings_everything_once(
    faulty_servers: dict[str, FaultyServer],
    study: Callable[..., Swept],
    unharmed: Callable[..., None],
) -> None:
    """Three sweeps at once, each with a server of its own; the broken one fails in the middle, and
    the slow one answers no call between the first step of its sweep, on Ray, and the last."""
    faulty_servers["broken"].fault = "none"
    faulty_servers["broken"].fail_after(20, "broken")
    swept = {
        fault: study(name=fault, tracking={"uri": proxy.uri})
        for fault, proxy in faulty_servers.items()
    }
    slow, gate = faulty_servers["slow"], swept["slow"].folder / "gate"
    swept["slow"].env |= LONG
    gate.touch()
    drivers = {"slow": swept["slow"].start()}
    wait_for(swept["slow"].steps, swept["slow"].log)
    asked = slow.asked
    slow.answers.clear()
    drivers |= {fault: swept[fault].start("--serial") for fault in ("down", "broken")}
    gate.unlink()
    trained(swept["slow"])
    assert slow.asked > asked, "its workers have begun to publish"
    slow.fault = "none"
    slow.answers.set()
    for each in swept.values():
        trained(each)
    assert {fault: swept[fault].wait(driver) for fault, driver in drivers.items()} == dict.fromkeys(
        swept, 0
    )
    for proxy in faulty_servers.values():
        proxy.fault = "none"
    assert "`lth sync down`, publishes the results" in swept["down"].log()
    assert "`lth sync broken` publishes what is missing" in swept["broken"].log()
    assert swept["down"].lth("sync", "down") == "down: 4 trials are in MLflow\n"
    for fault, each in swept.items():
        synced = sync(make_plan(parse_study(each.fields)))
        assert (synced.trials, synced.failures) == (4, {})
        unharmed(FAULTS[fault], each, steps_again=0)
    held = {fault: published(each) for fault, each in swept.items()}
    assert all(each == held["slow"] for each in held.values())
    assert len(held["slow"]) == 4
    for status, _, histories, _ in held["slow"].values():
        assert status == "FINISHED"
        assert [step for step, _ in histories["density"]] == [0, 1, 2]


def trained(swept: Swept) -> None:
    """Wait until it is, to the end."""
    wait_for(lambda: swept.finished() == 4 * 5, lambda: f"the trainings: {swept.log()}")


def published(swept: Swept) -> dict[str, tuple[Any, ...]]:
    """All that MLflow has of a study's trials, but for times."""
    from mlflow import MlflowClient

    uri = swept.fields["tracking"]["uri"]
    experiment = MlflowClient(uri).get_experiment_by_name(swept.fields["name"])
    assert experiment
    return {
        key: (status, params, {
            name: [(point[0], point[-1]) for point in history]
            for name, history in histories.items() if "seconds" not in name
        }, {path for path, _ in files})
        for key, (status, params, histories, files) in contents(uri, experiment.experiment_id).items()
    }  # fmt: skip
