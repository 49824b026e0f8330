"""Tracking at scale: a server on PostgreSQL, artifacts in S3, many publishers, kill -9."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from servers import S3Server
from servers_mlflow import MlflowServer, contents

from lth_core import Trainer, find_tickets, load_ticket
from lth_core.errors import TrackingError
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.report.sync import publish_missing, sync
from sweeps.store.published import level_records, trial_run
from sweeps.store.records import save_records
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Study
from tracking.publish.publisher import open_publisher

pytestmark = pytest.mark.mlflow

PUBLISHERS = 4
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT", "240"
"""So that a server on a busy machine is not taken for a silent one."""


@pytest.fixture(scope="module", autouse=True)
def long_timeout() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*TIMEOUT)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store of all studies here, which train the same."""
    return str(tmp_path_factory.mktemp("at-scale") / "store")


@pytest.fixture
def study(at_scale: MlflowServer, store: str, tmp_path: Path) -> Study:
    """A study that was swept and is not yet in MLflow."""
    return swept(tmp_path.name, at_scale, store)


def swept(name: str, at_scale: MlflowServer, store: str) -> Study:
    """Sweep three trials of one level, with nothing published."""
    study = parse_study({
        "name": name,
        "base": {
            "model": {"widths": [16]}, "train": {"steps": "40it", "evaluate_every": "20it"},
            "levels": 1, "branches": ["ticket", "reinit"],
        },
        "axes": {"seed": [0, 1, 2]},
        "store": store,
        "tracking": {"uri": at_scale.uri},
    })  # fmt: skip
    trainer = Trainer(open_store(store))
    for trial in make_plan(study).trials:
        levels = find_tickets(trial.spec, trainer)
        records = [row for level in levels for row in level_records(trial, name, level)]
        save_records(trainer.store, name, study.digest(), trial, records)
    return study


def published(study: Study, at_scale: MlflowServer) -> dict[str, tuple[object, ...]]:
    """All that MLflow has of a study's trials."""
    return contents(at_scale.uri, open_publisher(at_scale.uri, study.name, "").experiment)


@pytest.fixture(scope="module")
def undisturbed(at_scale: MlflowServer, store: str) -> Study:
    """A study of the same trials that one process published, with nothing in the way."""
    study = swept("undisturbed", at_scale, store)
    publish_missing(make_plan(study))
    return study


def publish_all(study: Study, first: int, at_once: threading.Barrier) -> None:
    """Publish all trials level by level, beginning with trial `first`."""
    os.environ.update([TIMEOUT])
    at_once.wait(300)
    publisher = open_publisher(str(study.tracking.uri), study.name, "")
    trials = make_plan(study).trials
    trainer = Trainer(open_store(study.store), frozen=True)
    for trial in [*trials[first:], *trials[:first]]:
        run, known = trial_run(trial), None
        for level in find_tickets(trial.spec, trainer):
            records = level_records(trial, study.name, level)
            known = publisher.publish(run, level, records, known)
        publisher.finish(run, published=known)


def test_many_publishers_of_the_same_trials_leave_one_run_of_each_with_nothing_doubled(
    study: Study, undisturbed: Study, at_scale: MlflowServer
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sweeps.report.sync", "mlflow", "test_tracking_at_scale"])
    at_once = context.Barrier(PUBLISHERS)
    processes = [
        context.Process(target=publish_all, args=(study, number % 2, at_once), daemon=True)
        for number in range(PUBLISHERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0] * PUBLISHERS
    publish_missing(make_plan(study))  # for the verdicts
    assert published(study, at_scale) == published(undisturbed, at_scale)


def test_sync_after_a_server_was_killed_in_the_middle_brings_all_of_it_once(
    study: Study, undisturbed: Study, at_scale: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed during the call that marks the first trial's second level: it may get through."""
    from mlflow import MlflowClient

    expected = published(undisturbed, at_scale)
    log_batch, calls = MlflowClient.log_batch, count(1)

    def log_batch_while_it_is_killed(*call: Any, **options: Any) -> None:
        killer = threading.Thread(target=at_scale.kill)
        if next(calls) == 2:
            killer.start()
        try:
            log_batch(*call, **options)
        finally:
            if killer.ident:
                killer.join()

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", log_batch_while_it_is_killed)
        with pytest.raises(TrackingError, match="does not answer as MLflow should"):
            publish_missing(make_plan(study))
    at_scale.start()
    assert published(study, at_scale).keys() < expected.keys(), "two trials are missing"
    for _ in range(2):
        synced = sync(make_plan(study))
        assert (synced.trials, synced.failures) == (3, {})
        assert published(study, at_scale) == expected


def test_artifacts_are_in_the_bucket_whose_keys_the_server_alone_has(
    undisturbed: Study, at_scale: MlflowServer, s3_server: S3Server, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    publisher = open_publisher(at_scale.uri, undisturbed.name, "")
    (run, *_) = publisher.runs().values()
    client = MlflowClient(at_scale.uri)
    file = client.download_artifacts(run.id, "level_01/ticket.safetensors", str(tmp_path))
    assert load_ticket(file).level == 1
    put = f"PUT /lth-tests/mlflow/{publisher.experiment}/{run.id}/artifacts/level_01/ticket"
    assert any(request.startswith(put) for request in s3_server.requests())
