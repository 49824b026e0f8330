"""Tracking at scale: a server on PostgreSQL, artifacts in S3, many publishers, kill -9."""

import multiprocessing
import os
import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from servers import S3Server
from servers_mlflow import MlflowServer, contents
from tiny import Lth, StudyOf

from lth_core import Trainer, find_tickets, load_ticket
from lth_core.errors import TrackingError
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.report.sync import publish_missing
from sweeps.store.published import level_records, trial_run
from sweeps.store.records import save_records
from sweeps.studies.find import remember
from sweeps.studies.schema import Study
from tracking.publish.publisher import open_publisher

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]

PUBLISHERS = 8


@pytest.fixture
def study(
    at_scale: MlflowServer, tiny: StudyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Study:
    """Three trials of a level, searched and in the store, and not yet in MLflow."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "240")  # a busy machine is no silent server
    study = tiny({
        "name": tmp_path.name, "axes.seed": [0, 1, 2], "store": str(tmp_path / "store"),
        "tracking.uri": at_scale.uri, "base.levels": 1,
    })  # fmt: skip
    keep(study, Trainer(open_store(study.store)))
    remember(study)
    return study


def keep(study: Study, trainer: Trainer) -> None:
    """Search the study's trials, and keep their records under its name."""
    for trial in make_plan(study).trials:
        found = find_tickets(trial.spec, trainer)
        records = [row for level in found for row in level_records(trial, study.name, level)]
        save_records(trainer.store, study.name, study.digest(), trial, records)


def held(study: Study, at_scale: MlflowServer) -> dict[str, tuple[object, ...]]:
    """All that MLflow holds of the study's trials."""
    publisher = open_publisher(at_scale.uri, study.name, "")
    return contents(at_scale.uri, publisher.experiment)


def undisturbed(study: Study, at_scale: MlflowServer) -> dict[str, tuple[object, ...]]:
    """The same store published under another name, with nothing in the way."""
    other = study.model_copy(update={"name": f"{study.name}-well"})
    keep(other, Trainer(open_store(study.store), frozen=True))
    publish_missing(make_plan(other))
    return held(other, at_scale)


def publish_all(study: Study, first: int, at_once: "threading.Barrier") -> None:
    """What a process does: all trials, beginning with one, level by level."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "240"  # eight at once, on whatever machine
    at_once.wait(300)
    publisher = open_publisher(str(study.tracking.uri), study.name, "")
    trials = make_plan(study).trials
    trainer = Trainer(open_store(study.store), frozen=True)
    for trial in [*trials[first:], *trials[:first]]:
        run, at = trial_run(trial), None
        for level in find_tickets(trial.spec, trainer):
            at = publisher.publish(run, level, level_records(trial, study.name, level), at)
        publisher.finish(run, published=at)


def test_eight_publishers_of_the_same_trials_leave_one_run_of_each_with_nothing_doubled(
    study: Study, at_scale: MlflowServer
) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["sweeps.report.sync", "mlflow", "test_tracked_at_scale"])
    at_once = processes.Barrier(PUBLISHERS)
    begun = [
        processes.Process(target=publish_all, args=(study, number % 2, at_once), daemon=True)
        for number in range(PUBLISHERS)
    ]
    for process in begun:
        process.start()
    for process in begun:
        process.join(600)
    assert [process.exitcode for process in begun] == [0] * PUBLISHERS
    publish_missing(make_plan(study))  # it brings the verdicts
    assert held(study, at_scale) == undisturbed(study, at_scale)


def test_sync_after_a_server_was_killed_in_the_middle_brings_all_of_it_once(
    study: Study, at_scale: MlflowServer, lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed during the call that marks the first trial's second level: it may get through."""
    from mlflow import MlflowClient

    expected = undisturbed(study, at_scale)
    log_batch, calls = MlflowClient.log_batch, count(1)

    def log_batch_while_it_is_killed(*call: Any) -> None:
        killer = threading.Thread(target=at_scale.kill)
        if next(calls) == 2:
            killer.start()
        try:
            log_batch(*call)
        finally:
            if killer.ident:
                killer.join()

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", log_batch_while_it_is_killed)
        with pytest.raises(TrackingError, match="does not answer as MLflow should"):
            publish_missing(make_plan(study))
    at_scale.start()
    assert held(study, at_scale).keys() < expected.keys(), "two trials are missing"
    said = []
    for _ in range(3):
        called = lth("sync", study.name)
        assert (called.code, called.out) == (0, f"{study.name}: 3 trials are in MLflow\n")
        said.append(held(study, at_scale))
    assert said == [expected] * 3


def test_artifacts_are_in_the_bucket_whose_keys_the_server_alone_has(
    study: Study, at_scale: MlflowServer, s3_server: S3Server, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    publish_missing(make_plan(study))
    publisher = open_publisher(at_scale.uri, study.name, "")
    (run, *_) = publisher.runs().values()
    client = MlflowClient(at_scale.uri)
    file = client.download_artifacts(run.id, "level_01/ticket.safetensors", str(tmp_path))
    assert load_ticket(file).level == 1
    put = f"PUT /lth-tests/mlflow/{publisher.experiment}/{run.id}/artifacts/level_01/ticket"
    assert any(request.startswith(put) for request in s3_server.requests())
