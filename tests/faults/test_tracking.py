"""An MLflow that is down, killed, slow or broken: no sweep waits for it, and nothing is doubled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from servers_mlflow import FaultyServer, MlflowServer, contents, mlflow_server
from swept import Swept, wait_for

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


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[MlflowServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    with mlflow_server(folder, f"sqlite:///{folder}/mlflow.db", str(folder / "files")) as served:
        yield served


def test_no_sweep_waits_for_mlflow_and_sync_brings_everything_once(
    faulty_servers: dict[str, FaultyServer],
    mortal_server: MlflowServer,
    clusters: Callable[..., Any],
    study: Callable[..., Swept],
    unharmed: Callable[..., None],
) -> None:
    """Four sweeps at once, each with a server of its own; the broken one fails in the middle, and
    the slow one answers no call between the first step of its sweep and the last."""
    address = clusters(LONG, LONG).address
    faulty_servers["broken"].fault = "none"
    faulty_servers["broken"].fail_after(20, "broken")
    swept = {
        fault: study(address, name=fault, tracking={"uri": uri}, resources={"cpu": 0.5})
        for fault, uri in {
            **{fault: proxy.uri for fault, proxy in faulty_servers.items()}, "killed": mortal_server.uri,
        }.items()
    }  # fmt: skip
    slow, gate = faulty_servers["slow"], swept["slow"].folder / "gate"
    gate.touch()
    drivers = {"slow": swept["slow"].start()}
    wait_for(swept["slow"].steps, swept["slow"].log)
    asked = slow.asked
    slow.answers.clear()
    drivers |= {fault: each.start() for fault, each in swept.items() if fault != "slow"}
    gate.unlink()
    wait_for(lambda: swept["killed"].finished() >= 5, swept["killed"].log)
    mortal_server.kill()
    trained(swept["slow"])
    assert slow.asked > asked, "its workers have begun to publish"
    slow.answers.set()
    for each in swept.values():
        trained(each)
    for proxy in faulty_servers.values():
        proxy.fault = "none"
    assert {fault: swept[fault].wait(driver) for fault, driver in drivers.items()} == dict.fromkeys(
        swept, 0
    )
    assert "`lth sync down` publishes the results" in swept["down"].log()
    assert "`lth sync killed` publishes what is missing" in swept["killed"].log()
    mortal_server.start()
    for fault, each in swept.items():
        assert each.lth("sync", fault) == f"{fault}: 4 trials are in MLflow\n"
        unharmed({**FAULTS, "killed": "MLflow killed in the middle"}[fault], each, steps_again=0)
    held = {fault: published(each) for fault, each in swept.items()}
    assert all(each == held["killed"] for each in held.values())
    assert len(held["killed"]) == 4
    for status, _, histories, _ in held["killed"].values():
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
