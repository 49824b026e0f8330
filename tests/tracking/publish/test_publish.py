"""MLflow as a projection: the same contract on an SQLite file and on a server over HTTP."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec, find_tickets, load_ticket
from lth_core.analysis.cells import cells
from lth_core.analysis.verdict import Verdict, verdicts
from lth_core.errors import TrackingError
from lth_core.results import LevelResult
from tracking.publish import names
from tracking.publish.cell_run import CellRun
from tracking.publish.client import check_database
from tracking.publish.curve_files import curve_files
from tracking.publish.payload import level_metrics
from tracking.publish.publisher import Publisher, open_publisher
from tracking.publish.study_run import StudyContent
from tracking.publish.trial_run import TrialRun

mlflow = pytest.mark.mlflow

SPEC = TicketSpec(
    data=DataSpec(fraction=0.3),
    model=ModelSpec(widths=(16,)),
    train=TrainSpec(steps=20, evaluate_every=10),
    levels=2,
    branches=("ticket", "reinit"),
    seed=3,
)


ROWS = [
    {"seed": seed, "method": "imp", "level": level, "branch": branch, "density": 0.5**level,
     "steps": 10, "when": "after", "early_stop_step": 5, "final_test_accuracy": 0.96 + 0.01 * level}
    for seed in range(3)
    for level, branch in ((0, "dense"), (1, "ticket"))
]  # fmt: skip
(VERDICT,) = verdicts(ROWS, ["seed"])


@pytest.fixture(scope="module")
def levels() -> list[LevelResult]:
    return list(find_tickets(SPEC))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture(params=["database", pytest.param("server", marks=pytest.mark.long)])
def publisher(request: pytest.FixtureRequest, tmp_path: Path) -> Publisher:
    """A study of its own in the SQLite file or on the server that these tests share."""
    return open_publisher(
        request.getfixturevalue(request.param), tmp_path.name, "about it", "study.yaml"
    )


@pytest.fixture(scope="module", params=["database", pytest.param("server", marks=pytest.mark.long)])
def published(request: pytest.FixtureRequest, levels: list[LevelResult]) -> Publisher:
    """A study with the trial published. To be read from, not written to."""
    uri = request.getfixturevalue(request.param)
    publisher = open_publisher(uri, "published", "about it", "study.yaml")
    publish(publisher, levels)
    return publisher


def trial_of(levels: list[LevelResult]) -> TrialRun:
    spec = levels[0].spec
    cell = CellRun(key="all", name="all seeds", fields={}, spec=spec)
    return TrialRun(key=spec.digest(), name="s3", fields={"seed": 3}, spec=spec, cell=cell)


def publish(publisher: Publisher, levels: list[LevelResult]) -> None:
    for level in levels:
        publisher.publish(trial_of(levels), level, level.records)
    publisher.finish(trial_of(levels))


def everything(publisher: Publisher) -> dict[str, tuple[Any, ...]]:
    """Status, params, metric histories and artifacts of each of a study's runs, by run id."""
    from mlflow import MlflowClient

    client = MlflowClient(publisher.uri)
    found = {}
    for run in client.search_runs([publisher.experiment]):
        histories = {
            key: [
                (m.step, m.timestamp, m.value)
                for m in client.get_metric_history(run.info.run_id, key)
            ]
            for key in run.data.metrics
        }
        root = client.list_artifacts(run.info.run_id)
        files = [a.path for a in root if not a.is_dir] + [
            a.path
            for folder in root
            if folder.is_dir
            for a in client.list_artifacts(run.info.run_id, folder.path)
        ]
        found[run.info.run_id] = (run.info.status, dict(run.data.params), histories, files)
    return found


def only_trial(publisher: Publisher) -> tuple[Any, ...]:
    """`everything` of the study's one trial."""
    (run,) = publisher.runs().values()
    return everything(publisher)[run.id]


@mlflow
def test_a_trial_becomes_a_run_below_its_cell_and_that_below_the_study(
    published: Publisher, levels: list[LevelResult]
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(published.uri)
    (held,) = published.cells().values()
    cell, run = client.get_run(held.id), client.get_run(published.runs()[digest_of(levels)].id)
    assert cell.data.tags[names.PARENT] == published.study_run
    assert run.data.tags[names.PARENT] == cell.info.run_id
    assert (cell.info.run_name, run.info.run_name) == ("all seeds", "s3")
    assert run.data.tags[names.METHOD] == "imp"
    assert run.data.tags[names.SOURCE] == "study.yaml"
    assert len(run.data.tags.get(names.COMMIT, "")) in (0, 40)
    assert run.info.status == "FINISHED"
    trained = [level.results[branch].training for level in levels for branch in level.results]
    ends = [int(training.finished_at * 1000) for training in trained]
    assert run.info.end_time == max(ends)
    assert run.info.start_time == int(1000 * (trained[0].finished_at - trained[0].seconds))
    assert (run.data.params["seed"], run.data.params["model.widths"]) == ("3", "16")
    assert run.data.params.keys() - cell.data.params.keys() == {"seed"}
    assert not [name for name in run.data.params if "grasp" in name]
    for each in (cell, run):
        (used,) = each.inputs.dataset_inputs
        assert used.dataset.name == "digits"
        assert '"train":' in used.dataset.profile


def digest_of(levels: list[LevelResult]) -> str:
    return levels[0].spec.digest()


@mlflow
def test_metrics_are_few_and_have_the_level_as_step(
    published: Publisher, levels: list[LevelResult]
) -> None:
    _, _, histories, _ = only_trial(published)
    records = [record for level in levels for record in level.records]
    tickets = {r["level"]: r for r in records if r["branch"] in ("dense", "ticket")}
    assert [(s, v) for s, _, v in histories["density"]] == [
        (level, pytest.approx(record["density"])) for level, record in tickets.items()
    ]
    for branch, metric, name in (("ticket", "accuracy", "final_test_accuracy"),
                                 ("reinit", "early_stop", "early_stop_step")):  # fmt: skip
        expected = [(r["level"], r[name]) for r in records if r["branch"] == branch]
        assert [(s, v) for s, _, v in histories[f"{metric}/{branch}"]] == expected
    assert len(histories) < 12


@mlflow
def test_curves_and_all_columns_are_in_one_file_a_level_and_in_metrics_on_request(
    published: Publisher, levels: list[LevelResult], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    (run,) = published.runs().values()
    client = MlflowClient(published.uri)
    folder = Path(client.download_artifacts(run.id, "level_02", str(tmp_path)))
    said, curves = json.loads((folder / "curves.json").read_text()), levels[2].results["reinit"]
    assert said["records"] == levels[2].records
    assert said["curves"]["reinit"] == asdict(curves.training.curves)
    picture = ElementTree.parse(folder / "curves.svg").getroot()
    assert len(picture.findall(".//{*}polyline")) == 3 * 2
    spec = yaml.safe_load(Path(client.download_artifacts(run.id, "spec.yaml")).read_text())
    assert (spec["spec"]["seed"], spec["spec_digest"]) == (3, digest_of(levels))
    level, records = levels[2], levels[2].records
    found = [m for m in level_metrics(level, records, curves=True) if "/reinit/" in m.key]
    assert {m.key for m in found} > {"level_02/reinit/train_loss", "level_02/reinit/test_accuracy"}
    assert {m.step for m in found} == {10, 20}


@mlflow
def test_without_validation_examples_there_are_no_metrics_of_them() -> None:
    spec = replace(SPEC, data=DataSpec(validation=0), levels=0)
    (level,) = find_tickets(spec)
    found = {metric.key for metric in level_metrics(level, level.records, curves=True)}
    assert not {key for key in found if "validation" in key or "early_stop" in key}
    assert {"accuracy/dense", "level_00/dense/test_accuracy"} <= found
    assert b"Validation" not in curve_files(level, level.records)["curves.svg"]


@mlflow
def test_test_accuracy_is_a_metric_at_those_steps_that_have_it() -> None:
    train = replace(SPEC.train, lr=0.1, evaluate_every=1, evaluate_test="best")
    (level,) = find_tickets(replace(SPEC, train=train, levels=0))
    curves = level.results["dense"].training.curves
    known = [s for s, a in zip(curves.step, curves.test_accuracy, strict=True) if a is not None]
    assert 0 < len(known) < len(curves.step)
    found = level_metrics(level, level.records, curves=True)
    assert [m.step for m in found if m.key.endswith("/test_accuracy")] == known


@mlflow
def test_what_was_not_measured_is_no_metric(levels: list[LevelResult]) -> None:
    ticket, reinit = levels[1].records
    records = [{**ticket, "test_barrier": 0.0}, {**reinit, "test_barrier": None}]
    found = {metric.key: metric.value for metric in level_metrics(levels[1], records)}
    assert found["barrier/ticket"] == 0.0
    assert "barrier/reinit" not in found


@mlflow
def test_each_level_keeps_its_mask_and_a_ticket_that_loads(
    published: Publisher, levels: list[LevelResult], tmp_path: Path
) -> None:
    from mlflow import MlflowClient
    from safetensors.numpy import load_file

    client = MlflowClient(published.uri)
    (run,) = client.search_runs([published.experiment], f"tags.`{names.KEY}` != ''")
    for level in levels:
        folder = client.download_artifacts(
            run.info.run_id, f"level_{level.level:02d}", str(tmp_path)
        )
        ticket = load_ticket(Path(folder) / "ticket.safetensors")
        assert ticket.digest == level.ticket.digest
        bits = load_file(Path(folder) / "mask.safetensors")
        kept = sum(int.from_bytes(b.tobytes(), "little").bit_count() for b in bits.values())
        assert kept == level.records[0]["weights_kept"]


@mlflow
def test_publishing_again_changes_nothing(publisher: Publisher, levels: list[LevelResult]) -> None:
    publish(publisher, levels[:2])
    assert publisher.runs()[digest_of(levels)].levels == 2
    publish(publisher, levels)
    before = everything(publisher)
    publish(publisher, levels)
    again = open_publisher(publisher.uri, _name(publisher), "about it", "study.yaml")
    assert again == publisher
    publish(again, levels)
    publish(again, levels[:1])
    assert everything(publisher) == before
    assert publisher.runs()[digest_of(levels)].levels == 3


@mlflow
def test_a_run_with_other_results_is_made_again(
    publisher: Publisher, levels: list[LevelResult]
) -> None:
    """The trial was trained again, on a machine that rounds in another way."""
    trial = trial_of(levels)

    def rows(level: LevelResult) -> list[dict[str, Any]]:
        return [{**row, "final_test_accuracy": 0.5} for row in level.records]

    publish(publisher, levels)
    (before,) = publisher.runs().values()
    with pytest.raises(TrackingError, match="level 1 cannot be published over other results"):
        publisher.publish(trial, levels[1], rows(levels[1]))
    for level in levels:
        publisher.publish(trial, level, rows(level), live=True)
    (run,) = publisher.runs().values()
    assert (run.id != before.id, run.levels) == (True, 3)
    assert [value for _, _, value in only_trial(publisher)[2]["accuracy/ticket"]] == [0.5, 0.5]
    publish(replace(publisher, curves=True), levels[:1])
    assert "level_00/dense/train_loss" in only_trial(publisher)[2]


def _name(publisher: Publisher) -> str:
    from mlflow import MlflowClient

    return MlflowClient(publisher.uri).get_experiment(publisher.experiment).name


@mlflow
def test_a_refused_level_raises_although_the_user_has_mlflow_log_in_the_background(
    database: str, tmp_path: Path, levels: list[LevelResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.entities import Param

    publisher = open_publisher(database, tmp_path.name, "about it")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    with monkeypatch.context() as patch:
        patch.setattr("tracking.publish.trial_run.params", lambda *_: [Param("a//b", "")])
        with pytest.raises(TrackingError, match=r"refuses a call: .*a//b"):
            publisher.publish(trial_of(levels), levels[0], levels[0].records)
    publish(publisher, levels)
    assert publisher.runs()[digest_of(levels)].levels == 3


@mlflow
def test_an_unreachable_server_is_an_error_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"tracking.uri: http://127.0.0.1:9 does not answer"):
        open_publisher("http://127.0.0.1:9", "a-study", "about it")
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("uri", ["file:///tmp/x", "mlruns", "postgres://x"])
def test_an_address_of_another_kind_is_refused(uri: str) -> None:
    with pytest.raises(TrackingError, match="must be sqlite:///FILE"):
        open_publisher(uri, "a-study", "about it")


@mlflow
@pytest.mark.slow
def test_two_processes_may_open_the_first_study_of_a_folder_at_once(tmp_path: Path) -> None:
    code = "import sys; from tracking.publish.publisher import open_publisher as o; o(*sys.argv[1:], '')"
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    opening = [subprocess.Popen([sys.executable, "-c", code, uri, name], stderr=subprocess.PIPE)
               for name in ("one", "other")]  # fmt: skip
    errors = [process.communicate()[1] for process in opening]
    assert [process.returncode for process in opening] == [0, 0], errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db"]


@mlflow
def test_a_database_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore.__init__", killed)
    with pytest.raises(KeyboardInterrupt):
        check_database(tmp_path / "mlflow.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["folder", "text", "text/below.db"])
def test_a_file_that_is_no_database_is_refused_at_once(file: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database, but long enough to have a header " * 9)
    with pytest.raises(TrackingError, match=rf"{tmp_path}/{file} cannot be opened as an SQLite"):
        open_publisher(f"sqlite:///{tmp_path}/{file}", "a-study", "about it")


@mlflow
def test_publishing_cut_off_anywhere_is_made_whole_by_the_next(
    publisher: Publisher, levels: list[LevelResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off before the artifacts, before the level is marked, before the run is ended."""
    from mlflow import MlflowClient

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for call in ("log_artifacts", "log_batch", "set_terminated"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, killed)
            with pytest.raises(KeyboardInterrupt):
                publish(publisher, levels)
        assert publisher.runs()[digest_of(levels)].levels == (3 if call == "set_terminated" else 0)
    publish(publisher, levels)
    status, params, histories, files = only_trial(publisher)
    assert (status, params["seed"]) == ("FINISHED", "3")
    assert [step for step, _, _ in histories["density"]] == [0, 1, 2]
    assert len(files) == 1 + 3 * 6


def content(digest: str, report: Callable[[], Path], verdicts: list[Verdict]) -> StudyContent:
    """A study of one trial whose answer is its digest."""
    return StudyContent(
        digest=digest * 64, description=lambda experiment, run: f"**{digest}** {run}",
        cells={"all": cells(ROWS, ["seed"])[0]}, axes=["seed"], specs=[SPEC], verdicts=verdicts,
        trials={"planned": 1}, report=report, study_file=b"name: x", ended=ENDED, status="FINISHED",
    )  # fmt: skip


ENDED = 4_000_000_000_000
"""End of a study's trainings, in ms since 1970."""


@mlflow
def test_report_and_answer_go_to_the_studys_own_run_and_again_change_nothing(
    publisher: Publisher, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    client, asked = MlflowClient(publisher.uri), list[str]()

    def publish(digest: str, verdicts: list[Verdict]) -> None:
        def report() -> Path:
            asked.append(digest)
            return drawn(tmp_path)

        publisher.publish_study(content(digest, report, verdicts))

    winning = [replace(VERDICT, verdict="winning")]
    for digest, count in (("a", 2), ("a", 2), ("b", 1), ("c", 1)):
        publish(digest, winning * count)
    assert asked == ["a", "b", "c"]
    run = client.get_run(publisher.study_run)
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "winning")
    assert run.info.end_time == ENDED
    assert (run.data.metrics["sparsest_winning"], run.data.metrics["ticket_accuracy"]) == (
        0.5,
        0.97,
    )
    history = client.get_metric_history(run.info.run_id, "accuracy/dense")
    assert [(m.step, m.value) for m in history] == [(0, 0.96), (1, 0.96)]
    history = client.get_metric_history(run.info.run_id, "verdicts/winning")
    assert [metric.value for metric in history] == [2.0, 1.0]
    assert run.data.tags[names.DESCRIPTION] == f"**c** {run.info.run_id}"
    experiment = client.get_experiment(publisher.experiment)
    assert experiment.tags[names.DESCRIPTION] == f"**c** {run.info.run_id}"
    assert artifacts(client, run.info.run_id) == {
        "report.html", "study.yaml", "figures", "figures/accuracy.svg",
    }  # fmt: skip
    publish("c", winning)
    again = client.get_run(publisher.study_run)
    assert (again.info.end_time, again.info.start_time) == (ENDED, run.info.start_time)


def drawn(folder: Path) -> Path:
    """A report with one figure; another process is writing a second one."""
    (folder / "figures").mkdir(exist_ok=True)
    for name in ("report.html", "figures/accuracy.svg", "figures/.0123.tmp"):
        (folder / name).write_text("drawn")
    return folder / "report.html"


def artifacts(client: Any, run: str) -> set[str]:
    return {a.path for where in (None, "figures") for a in client.list_artifacts(run, where)}


@mlflow
def test_studys_run_that_was_cut_off_anywhere_is_made_whole_by_the_next(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off before the artifacts, before the metrics, before the run is ended."""
    from mlflow import MlflowClient

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    whole = content("a", lambda: drawn(tmp_path), [])
    client = MlflowClient(publisher.uri)
    for call in ("log_artifact", "log_batch", "set_terminated"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, killed)
            with pytest.raises(KeyboardInterrupt):
                publisher.publish_study(whole)
        assert client.get_run(publisher.study_run).info.status == "RUNNING"
    publisher.publish_study(whole)
    run = client.get_run(publisher.study_run)
    assert (run.info.status, run.data.metrics["trials/planned"]) == ("FINISHED", 1.0)
    assert len(client.get_metric_history(run.info.run_id, "trials/planned")) == 1
    assert "report.html" in artifacts(client, run.info.run_id)


@mlflow
def test_metrics_of_a_study_that_an_older_version_finished_are_replaced(
    publisher: Publisher, tmp_path: Path
) -> None:
    """The older version stamped metrics with the time, and MLflow shows the latest stamp."""
    from mlflow import MlflowClient

    client = MlflowClient(publisher.uri)
    started = client.get_run(publisher.study_run).info.start_time
    client.log_metric(publisher.study_run, "trials/planned", 2.0, started + 5000)
    client.set_terminated(publisher.study_run, end_time=started + 6000)
    publisher.publish_study(content("a", lambda: drawn(tmp_path), []))
    assert client.get_run(publisher.study_run).data.metrics["trials/planned"] == 1.0


@mlflow
def test_no_run_stays_running_and_a_trial_that_goes_on_runs_again(
    publisher: Publisher, levels: list[LevelResult]
) -> None:
    def states() -> list[str]:
        from mlflow import MlflowClient

        runs = MlflowClient(publisher.uri).search_runs([publisher.experiment])
        return sorted(run.info.status for run in runs)

    held = publisher.publish(trial_of(levels), levels[0], levels[0].records)
    assert states() == ["RUNNING"] * 3
    publisher.finish(trial_of(levels), "KILLED", published=held)
    publisher.end_running()
    assert states() == ["KILLED"] * 3
    publisher.publish(trial_of(levels), levels[0], levels[0].records, live=True)
    publisher.resume()
    assert states() == ["KILLED", "RUNNING", "RUNNING"]
    for level in levels[1:]:
        publisher.publish(trial_of(levels), level, level.records, live=True)
    publisher.finish(trial_of(levels))
    publisher.end_running("FINISHED")
    publisher.finish(trial_of(levels), "KILLED")
    assert states() == ["FINISHED", "FINISHED", "KILLED"]
