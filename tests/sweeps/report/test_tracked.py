"""Tracking beside a sweep: a server that is away costs a note, and `lth sync` brings the rest."""

import logging
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny import Lth, Record, StudyFile, StudyOf, context_of, search

from lth_core import Trainer
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.run.launch import SweepOutcome, make_context, running
from sweeps.run.trial import run_trial
from sweeps.studies.find import save_swept
from sweeps.studies.schema import Study
from tracking.publish import payload
from tracking.publish.background import background_of
from tracking.publish.publisher import Publisher, open_publisher

pytestmark = pytest.mark.mlflow

AWAY = "http://127.0.0.1:9"
HERE = "sqlite:///mlflow.db"


def held(publisher: Publisher) -> dict[str, tuple[str, int, list[str]]]:
    """Status, number of metric values, and folders of artifacts of each trial's run, by its name."""
    from mlflow import MlflowClient

    client = MlflowClient(publisher.uri)
    return {
        run.data.tags["mlflow.runName"]: (
            run.info.status,
            sum(len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics),
            sorted(a.path for a in client.list_artifacts(run.info.run_id) if a.is_dir),
        )
        for run in client.search_runs([publisher.experiment], "tags.`lth.spec_digest` != ''")
    }


def swept_without_tracking(study: Study) -> list[Record]:
    save_swept(study)
    found = search(study, Trainer(open_store(study.store)))
    return [row for _, rows in found for row in rows]


def test_sweep_whose_server_is_away_goes_on_with_a_warning(
    tiny: StudyOf, caplog: pytest.LogCaptureFixture
) -> None:
    begun = time.monotonic()
    assert make_context(tiny({"tracking.uri": AWAY})).tracking is None
    assert time.monotonic() - begun < 60
    (warning,) = caplog.messages
    assert warning.startswith(f"tracking.uri: {AWAY} does not answer")
    assert "`lth sync tiny`, publishes" in warning


def test_sweep_that_published_nothing_names_no_page_of_it(tiny_file: StudyFile, lth: Lth) -> None:
    fields = {"tracking.uri": AWAY, "axes.seed": [0], "base.levels": 1}
    called = lth("sweep", tiny_file(fields), "--serial")
    assert called.code == 0
    assert "`lth sync tiny` publishes what is missing" in called.out
    assert "lth ui" not in called.out


def test_a_study_that_another_store_published_is_a_warning_once(
    server: str, tiny: StudyOf, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"tracking.uri": server, "name": here.parent.name}
    for store in ("./mine", "./mine", "./theirs", "./theirs"):
        make_context(tiny({**changes, "store": store}))
    (warning,) = caplog.messages
    assert f"of another store, {here / 'mine'}; their trials are mixed" in warning


def test_sync_of_a_sweep_without_tracking_names_the_command_that_publishes(
    swept: Path, lth: Lth
) -> None:
    called = lth("sync", "tiny")
    assert called.code == 2
    assert "tracking.uri=ADDRESS` publishes, and trains nothing again" in called.err


def test_a_study_has_its_views_and_a_description_from_its_first_training_on(tiny: StudyOf) -> None:
    from mlflow import MlflowClient

    publisher = make_context(tiny({"tracking.uri": HERE})).tracking
    assert publisher
    client = MlflowClient(publisher.uri)
    experiment = client.get_experiment(publisher.experiment).tags
    run = client.get_run(publisher.study_run).data.tags
    assert "after `lth sweep tiny`" in experiment["mlflow.note.content"]
    assert "after `lth sweep tiny`" in run["mlflow.note.content"]
    views = {name for name in experiment if name.startswith("mlflow.sharedViewState.")}
    assert views == {f"mlflow.sharedViewState.{name}" for name in ("cells", "trials")}
    assert "accuracy/reinit" in experiment["mlflow.sharedViewState.cells"]


def test_probes_leave_the_studys_run_as_the_last_sweep_left_it(tiny: StudyOf) -> None:
    from mlflow import MlflowClient

    context = make_context(tiny({"tracking.uri": HERE}))
    publisher = context.tracking
    assert publisher

    def state() -> str:
        return str(MlflowClient(publisher.uri).get_run(publisher.study_run).info.status)

    publisher.end_running("KILLED")
    with running(replace(context, probes=True), SweepOutcome()):
        assert state() == "KILLED"
    assert state() == "KILLED"
    with running(context, SweepOutcome()):
        assert state() == "RUNNING"
    assert state() == "FINISHED"


@pytest.mark.long
def test_trial_whose_server_goes_away_trains_on_and_sync_brings_what_is_missing(
    tiny: StudyOf, lth: Lth
) -> None:
    study = tiny({"axes.seed": [0], "tracking.uri": HERE})
    publisher = open_publisher(HERE, "tiny", "a study")
    gone = replace(publisher, uri=AWAY)
    (trial,) = make_plan(study).trials
    trainer = Trainer(open_store(study.store))
    levels = run_trial(trial, replace(context_of(study), tracking=publisher), trainer)
    assert next(levels)[0]["branch"] == "dense"  # the server goes after one level
    levels.close()
    assert background_of(publisher).drain(120)
    begun = time.monotonic()
    rest = list(run_trial(trial, replace(context_of(study), tracking=gone), trainer))
    assert time.monotonic() - begun < 60
    assert len(rest) == 3
    assert background_of(gone).drain(120)
    assert [folders for _, _, folders in held(publisher).values()] == [["level_00"]]

    save_swept(study)
    called = lth("sync", "tiny")
    assert (called.code, called.out) == (0, "tiny: 1 trial is in MLflow\n")
    ((status, metrics, folders),) = held(publisher).values()
    assert (status, folders) == ("FINISHED", ["level_00", "level_01", "level_02"])
    assert lth("sync", "tiny").code == 0
    assert held(publisher) == {"s0": (status, metrics, folders)}


def test_sync_publishes_from_the_store_what_was_swept_without_tracking(
    tiny: StudyOf, lth: Lth, here: Path
) -> None:
    study = tiny({"tracking.uri": HERE})
    swept_without_tracking(study)
    assert "2 trials are in MLflow" in lth("sync", "tiny").out
    assert lth("sync", "tiny", "-q").out == ""
    published = held(open_publisher(HERE, "tiny", "a study"))
    assert published.keys() == {"s0", "s1"}
    assert {status for status, _, _ in published.values()} == {"FINISHED"}
    assert len({metrics for _, metrics, _ in published.values()}) == 1
    assert (here / "mlflow.db").is_file()


def test_sync_says_when_the_server_is_away(tiny: StudyOf, lth: Lth) -> None:
    save_swept(tiny({"tracking.uri": AWAY}))
    called = lth("sync", "tiny")
    assert called.code == 2
    assert called.err.startswith(f"lth: tracking.uri: {AWAY} does not answer as MLflow should")
    assert called.err.count("\n") == 1


def test_report_is_made_although_the_server_is_away(tiny: StudyOf, lth: Lth, here: Path) -> None:
    swept_without_tracking(tiny({"tracking.uri": AWAY}))
    called = lth("report", "tiny")
    assert called.code == 0
    assert "`lth sync tiny` publishes what is missing" in called.out
    assert (here / "lth-studies" / "tiny" / "report.html").is_file()


@pytest.fixture
def refused_seed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """MLflow refuses the trials of seed 0: they have a param with a name that it takes from nobody."""
    params = payload.params

    def with_a_bad_name(spec: Any, fields: Any) -> Iterator[Any]:
        from mlflow.entities import Param

        yield from params(spec, fields)
        if spec.seed == 0:
            yield Param("a//b", "")

    monkeypatch.setattr("tracking.publish.trial_run.params", with_a_bad_name)
    return monkeypatch


@pytest.mark.long
def test_trial_that_mlflow_refuses_holds_up_no_other_and_fails_the_sweep(
    tiny_file: StudyFile, lth: Lth, refused_seed: pytest.MonkeyPatch
) -> None:
    file = tiny_file({"axes.seed": [0, 1, 2], "base.levels": 1, "tracking.uri": HERE})
    called = lth("sweep", "--serial", file)
    assert called.code == 1, called
    reasons = [line for line in called.out.splitlines() if "could not be published" in line]
    assert len(reasons) == 1, called.out
    assert reasons[0].startswith("failed trial ")
    assert "a//b" in reasons[0]
    assert "`lth sync tiny` publishes what is missing" in called.out
    assert "report: " in called.out
    publisher = open_publisher(HERE, "tiny", "a study")
    finished = {name for name, (status, _, _) in held(publisher).items() if status == "FINISHED"}
    assert finished == {"s1", "s2"}

    called = lth("sync", "tiny")
    assert (called.code, called.out.count("could not be published")) == (1, 1)
    called = lth("report", "tiny")
    assert (called.code, called.out.count("could not be published")) == (0, 1)
    refused_seed.undo()


def test_refusal_makes_other_trials_wait_for_nothing(
    tiny: StudyOf, refused_seed: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next trial is published at once, where a server that is down is left alone for a while."""
    study = tiny({"base.levels": 1, "tracking.uri": HERE})
    publisher = open_publisher(HERE, "tiny", "a study")
    trainer = Trainer(open_store(study.store))
    with caplog.at_level(logging.WARNING):
        for trial in make_plan(study).trials:
            list(run_trial(trial, replace(context_of(study), tracking=publisher), trainer))
            assert background_of(publisher).drain(120)
    assert held(publisher)["s1"][0] == "FINISHED"
    (warning,) = caplog.messages
    assert "refuses a call" in warning


@pytest.mark.parametrize("uri", [HERE, pytest.param("server", marks=pytest.mark.long)])
@pytest.mark.long
def test_deleted_experiment_is_refused_with_the_command_that_restores_it(
    uri: str, tiny_file: StudyFile, lth: Lth, here: Path, request: pytest.FixtureRequest
) -> None:
    from mlflow import MlflowClient
    from mlflow.experiments import commands

    uri = request.getfixturevalue(uri) if uri == "server" else f"sqlite:///{here}/mlflow.db"
    name = here.parent.name
    publisher = open_publisher(uri, name, "a study")
    MlflowClient(uri).delete_experiment(publisher.experiment)
    called = lth("sweep", "--serial", tiny_file({"name": name, "tracking.uri": uri}))
    assert called.code == 2
    assert called.err == (
        f"lth: tracking.uri: the experiment {name} was deleted; `MLFLOW_TRACKING_URI={uri} "
        f"mlflow experiments restore --experiment-id {publisher.experiment}` restores it\n"
    )
    assert not list((here / "lth-store").glob("trainings/*"))
    setting, mlflow, group, *words = shlex.split(called.err.split("`")[1])
    assert (mlflow, group) == ("mlflow", "experiments")
    restored = CliRunner().invoke(commands, words, env=dict([setting.split("=", 1)]))
    assert restored.exit_code == 0, restored.output
    assert open_publisher(uri, name, "a study") == publisher


ODD_LAYERS = """
from torch import nn

def net(spec, shape, classes):
    sizes, layers = [64, 8, 8, classes], nn.Sequential(nn.Flatten())
    for name, n, m in zip(["a//b", "/" + "x" * 300, "a:b"], sizes, sizes[1:]):
        layers.add_module(name, nn.Linear(n, m))
    return layers
"""


@pytest.mark.long
def test_layers_with_names_that_mlflow_refuses_are_published(
    tiny_file: StudyFile, lth: Lth, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "odd_layers.py").write_text(ODD_LAYERS)
    monkeypatch.delitem(sys.modules, "odd_layers", raising=False)
    changes = {
        "axes.seed": [0], "base.levels": 1, "tracking.uri": HERE,
        "base.model": {"name": "odd_layers:net"},
    }  # fmt: skip
    called = lth("sweep", "--serial", tiny_file(changes))
    assert called.code == 0, called
    (run,) = held(open_publisher(HERE, "tiny", "a study")).values()
    assert (run[0], run[2]) == ("FINISHED", ["level_00", "level_01"])
