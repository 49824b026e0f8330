"""`lth sync` brings a study's own run too: finished, with its report, once."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from servers_mlflow import FaultyServer
from tiny import Lth, StudyOf, search

import sweeps
from lth_core import Trainer, find_tickets
from lth_core.errors import SpecError
from lth_core.spec import TicketSpec
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.report.sync import sync
from sweeps.store.published import PROBES, cell_run, level_records, study_publisher, trial_run
from sweeps.store.records import load_records, save_records
from sweeps.studies.find import save_swept
from sweeps.studies.schema import Study, Tracking
from tracking.publish import names
from tracking.publish.publisher import Publisher
from tracking.publish.runs import PublishedRun

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an SQLite file, in which each test has a study of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture
def swept_to(tiny: StudyOf, here: Path) -> Callable[[str], Study]:
    """Sweep the tiny study, three seeds of a level, under a new name, with nothing published."""

    def sweep(uri: str) -> Study:
        study = tiny({
            "name": here.parent.name, "axes.seed": [0, 1, 2], "base.levels": 1, "tracking.uri": uri
        })  # fmt: skip
        for _ in search(study, Trainer(open_store(study.store))):
            pass
        save_swept(study)
        return study

    return sweep


def study_runs(uri: str, study: str) -> list[dict[str, Any]]:
    """Content of the study's own runs that are not deleted."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id], f"tags.`{names.STUDY}` = '{study}'")
    return [
        {
            "id": run.info.run_id,
            "status": run.info.status,
            "end": run.info.end_time,
            "tags": run.data.tags,
            "metrics": {
                key: [metric.value for metric in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            },
            "files": {
                (file.path, file.file_size)
                for folder in (None, "figures")
                for file in client.list_artifacts(run.info.run_id, folder)
            },
        }
        for run in runs
    ]


def parents(uri: str, study: str) -> set[str]:
    """Runs that the study's cells are below; every trial is below one of them."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id])
    cells = {run.info.run_id: run for run in runs if names.CELL in run.data.tags}
    trials = [run for run in runs if names.KEY in run.data.tags]
    assert len(trials) == 3
    assert {run.data.tags[names.PARENT] for run in trials} == cells.keys()
    assert {run.info.status for run in runs} == {"FINISHED"}
    return {run.data.tags[names.PARENT] for run in cells.values()}


def is_whole(run: dict[str, Any]) -> bool:
    """Whether a run is finished, with verdict, counts, report and figures."""
    words = ("winning", "matching", "undecided", "not matching")
    counts = [run["metrics"][f"verdicts/{word}"] for word in words]
    files = {path for path, _ in run["files"]}
    return (
        run["status"] == "FINISHED"
        and run["tags"]["verdict"] in words
        and all(
            len(each) == 1 for name, each in run["metrics"].items() if name.startswith("trials")
        )
        and sum(count for (count,) in counts) == 1
        and run["metrics"]["trials/planned"] == [3.0]
        and run["metrics"]["trials/incomplete"] == [0.0]
        and {"report.html", "study.yaml", "figures/accuracy.svg", "figures/accuracy.pdf"} <= files
        and run["tags"][names.DESCRIPTION].startswith("**")
    )


def test_trials_whose_code_has_changed_leave_no_run_running(
    database: str, swept_to: Callable[..., Study], lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: TicketSpec, since: str) -> None:
        raise SpecError("model.name", f"must be what it was when {since}", spec.model.name)

    study = swept_to(database)
    monkeypatch.setattr("sweeps.report.sync.check_unchanged", refuse)
    called = lth("sync", study.name)
    assert called.code == 1
    assert called.out.count("could not be published: model.name: must be what it was when") == 3
    (run,) = study_runs(database, study.name)
    assert run["status"] == "KILLED"


@pytest.mark.long
def test_sync_after_an_outage_finishes_the_studys_run_once(
    faulty: FaultyServer, swept_to: Callable[..., Study], lth: Lth
) -> None:
    """The server is gone while the sweep ends, after the study's run was made."""
    from tracking.publish.publisher import open_publisher

    study = swept_to(faulty.uri)
    open_publisher(faulty.uri, study.name, "")
    faulty.fault = "down"
    called = lth("report", study.name)
    assert f"`lth sync {study.name}` publishes what is missing" in called.out
    faulty.fault = "none"
    (run,) = study_runs(faulty.uri, study.name)
    assert (run["status"], run["metrics"], run["files"]) == ("RUNNING", {}, set())
    for _ in range(2):
        called = lth("sync", study.name)
        assert (called.code, called.out) == (0, f"{study.name}: 3 trials are in MLflow\n")
        before, (run,) = run, study_runs(faulty.uri, study.name)
        assert is_whole(run), run
    assert run == before, "the second sync changed something"


@pytest.mark.long
def test_sync_after_a_report_that_was_published_changes_nothing(
    database: str, swept_to: Callable[..., Study], lth: Lth
) -> None:
    study = swept_to(database)
    assert lth("report", study.name).code == 0
    reported = study_runs(database, study.name)
    assert is_whole(reported[0])
    assert lth("sync", study.name).code == 0
    assert study_runs(database, study.name) == reported


def test_a_ticket_is_promoted_once_its_level_is_published(
    database: str, swept_to: Callable[..., Study], lth: Lth, here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    study = swept_to(database)
    tickets = [json.loads(line) for line in lth("ticket", "ls", "--json").out.splitlines()]
    digest, other = (
        next(row["ticket_digest"] for row in tickets if row["branch"] == branch)
        for branch in ("ticket", "reinit")
    )
    promote = ("ticket", "promote", digest[:12], "--model", "tried", "--alias", "mine")
    assert f"`lth sync {study.name}` publishes it" in lth(*promote).err
    lth("sync", study.name)
    called = lth("ticket", "promote", digest[:12])
    assert called.code == 2
    assert "must be a winning ticket for winning-tickets" in called.err
    assert "branch ticket" in lth("ticket", "promote", other, "--model", "tried").err
    assert [lth(*promote).out for _ in range(2)] == ["models:/tried/1\n"] * 2
    assert sweeps.load_ticket("models:/tried@mine", tracking=database).digest == digest
    monkeypatch.chdir(here.parent)
    called = lth(*promote, "--store", here / "lth-store")
    assert called.err.startswith("lth: DIGEST: must be of a study that was swept from this folder")


def test_sync_publishes_again_the_trial_whose_results_changed(
    database: str, swept_to: Callable[..., Study]
) -> None:
    """The store has lost its trainings, and they were made again on another machine."""
    study, client = swept_to(database), MlflowClient(database)
    store, trials = open_store(study.store), make_plan(study).trials
    publisher = study_publisher(study)
    sync(make_plan(study))
    before = publisher.runs()
    rows = load_records(store, study.name, trials[:1])
    rows[-1]["final_test_accuracy"] = 0.5
    save_records(store, study.name, study.digest(), trials[0], rows)
    for _ in range(2):
        sync(make_plan(study))
        runs = publisher.runs()
        changed = [key for key, run in runs.items() if run.id != before[key].id]
        assert changed == [trials[0].digest]
        run = runs[changed[0]]
        branch = rows[-1]["branch"]
        assert client.get_run(run.id).data.metrics[f"accuracy/{branch}"] == 0.5
        assert (run.levels, run.status) == (2, "FINISHED")
    with_curves = study.model_copy(update={"tracking": Tracking(uri=database, curves=True)})
    sync(make_plan(with_curves))
    for run in publisher.runs().values():
        assert "level_01/ticket/train_loss" in client.get_run(run.id).data.metrics


def test_sync_makes_a_studys_run_that_was_deleted_again_with_its_trials_below_it(
    database: str, swept_to: Callable[..., Study]
) -> None:
    study = swept_to(database)
    sync(make_plan(study))
    (first,) = study_runs(database, study.name)
    MlflowClient(database).delete_run(first["id"])
    sync(make_plan(study))
    (second,) = study_runs(database, study.name)
    assert second["id"] != first["id"]
    assert is_whole(second)
    assert parents(database, study.name) == {second["id"]}


@pytest.mark.parametrize("tag", [names.STUDY, names.CELL])
def test_sync_goes_on_where_another_publisher_deletes_a_run_meanwhile(
    tag: str, database: str, swept_to: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It made the run too, and of two it keeps the one that started first."""
    study, client, listed = swept_to(database), MlflowClient(database), Publisher.cells

    def list_then_delete(publisher: Publisher) -> dict[str, PublishedRun]:
        found = listed(publisher)
        if not deleted:
            (run, *_) = client.search_runs([publisher.experiment], f"tags.`{tag}` != ''")
            client.delete_run(run.info.run_id)
            deleted.append(run)
        return found

    deleted = list[object]()
    monkeypatch.setattr(Publisher, "cells", list_then_delete)
    sync(make_plan(study))
    assert deleted
    (run,) = study_runs(database, study.name)
    assert is_whole(run), run
    assert parents(database, study.name) == {run["id"]}


@pytest.mark.long
def test_sync_called_twice_at_once_leaves_one_whole_run(
    server: str, swept_to: Callable[..., Study]
) -> None:
    study, failures = swept_to(server), list[Exception]()
    at_once = threading.Barrier(2)

    def call() -> None:
        at_once.wait()
        try:
            sync(make_plan(study))
        except Exception as error:  # noqa: BLE001  the test shows it
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    (run,) = study_runs(server, study.name)
    assert is_whole(run), run
    assert parents(server, study.name) == {run["id"]}


@pytest.mark.long
def test_saved_views_leave_out_runs_of_earlier_settings(database: str, tiny: StudyOf) -> None:
    """Probes of `lth rewind` are kept, and a study that gets its settings back has its runs."""
    settings = {"name": "changed", "base.levels": 1, "tracking.uri": database}
    first = tiny({**settings, "axes.seed": [0, 1]})
    trainer = Trainer(open_store(first.store))
    later = tiny({**settings, "axes.seed": [1], "base.train.lr": 0.05})
    probed = make_plan(tiny({**settings, "axes.seed": [0], "base.rewind": 4})).trials[0]
    publisher = study_publisher(first)
    for level in find_tickets(probed.spec, trainer):
        records = level_records(probed, "changed", level)
        publisher.publish(trial_run(probed, probe=True), level, records)

    def shown() -> dict[str, list[str]]:
        client = MlflowClient(database)
        tags = client.get_experiment(publisher.experiment).tags
        views = {key: json.loads(tags[f"{names.VIEW}{key}"]) for key in ("cells", "trials")}
        filters = {key: json.loads(view["state"])["searchFilter"] for key, view in views.items()}
        found = {
            key: client.search_runs([publisher.experiment], query) for key, query in filters.items()
        }
        return {
            key: sorted(run.data.tags[names.KEY if key == "trials" else names.CELL] for run in runs)
            for key, runs in found.items()
        }

    for study in (first, later, first):
        for _ in search(study, trainer):
            pass
        plan = make_plan(study)
        sync(plan)
        keys = [trial.digest for trial in plan.trials]
        cells = {cell_run(trial).key for trial in plan.trials}
        assert shown() == {
            "cells": sorted(cells | {PROBES.key}), "trials": sorted([*keys, probed.digest])
        }  # fmt: skip
