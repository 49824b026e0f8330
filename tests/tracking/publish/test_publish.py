"""MLflow as a projection: the same contract on an SQLite file and on a server over HTTP."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec, find_tickets, load_ticket
from lth_core.errors import TrackingError
from lth_core.results import LevelResult
from tracking.publish import names
from tracking.publish.payload import level_metrics
from tracking.publish.publisher import Publisher, TrialRun, open_publisher

mlflow = pytest.mark.mlflow

SPEC = TicketSpec(
    data=DataSpec(fraction=0.3),
    model=ModelSpec(widths=(16,)),
    train=TrainSpec(steps=20, evaluate_every=10),
    levels=2,
    branches=("ticket", "reinit"),
    seed=3,
)


@pytest.fixture(scope="module")
def levels() -> list[LevelResult]:
    return list(find_tickets(SPEC))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture(params=["database", "server"])
def publisher(request: pytest.FixtureRequest, tmp_path: Path) -> Publisher:
    """A study of its own in the SQLite file or on the server that these tests share."""
    return open_publisher(request.getfixturevalue(request.param), tmp_path.name, "about it")


@pytest.fixture(scope="module", params=["database", "server"])
def published(request: pytest.FixtureRequest, levels: list[LevelResult]) -> Publisher:
    """A study with the trial published. To be read from, not written to."""
    publisher = open_publisher(request.getfixturevalue(request.param), "published", "about it")
    publish(publisher, levels)
    return publisher


def trial_of(levels: list[LevelResult]) -> TrialRun:
    spec = levels[0].spec
    return TrialRun(key=spec.digest(), name="seed=3", fields={"seed": 3}, spec=spec)


def publish(publisher: Publisher, levels: list[LevelResult]) -> None:
    for level in levels:
        publisher.publish(trial_of(levels), level, level.records)
    publisher.finish(trial_of(levels))


def everything(publisher: Publisher) -> dict[str, object]:
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
        folders = [a.path for a in client.list_artifacts(run.info.run_id)]
        files = [
            a.path for folder in folders for a in client.list_artifacts(run.info.run_id, folder)
        ]
        found[run.info.run_id] = (run.info.status, dict(run.data.params), histories, files)
    return found


@mlflow
def test_a_trial_becomes_a_run_below_its_study(
    published: Publisher, levels: list[LevelResult]
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(published.uri)
    study = client.get_run(published.study_run)
    (run,) = client.search_runs(
        [published.experiment], f"tags.`{names.KEY}` = '{digest_of(levels)}'"
    )
    assert run.data.tags[names.PARENT] == study.info.run_id
    assert run.data.tags[names.RUN_NAME] == "seed=3"
    assert run.data.tags["axis.seed"] == "3"
    assert run.data.tags[names.METHOD] == "imp"
    assert len(run.data.tags[names.COMMIT]) in (0, 40)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.widths"] == "[16]"
    assert run.data.params["spec_digest"] == digest_of(levels)
    assert run.data.params["version.torch"]
    assert run.data.params["version.device"]


def digest_of(levels: list[LevelResult]) -> str:
    return levels[0].spec.digest()


@mlflow
def test_metrics_have_the_level_and_curves_the_iteration_as_step(
    published: Publisher, levels: list[LevelResult]
) -> None:
    ((_, _, histories, _),) = [v for v in everything(published).values() if v[1]]
    records = [record for level in levels for record in level.records]
    tickets = {r["level"]: r for r in records if r["branch"] in ("dense", "ticket")}
    assert [(s, v) for s, _, v in histories["density"]] == [
        (level, pytest.approx(record["density"])) for level, record in tickets.items()
    ]
    for branch, name in (("ticket", "final_test_accuracy"), ("reinit", "early_stop_step"),
                         ("ticket", "mask_overlap")):  # fmt: skip
        expected = [(r["level"], r[name]) for r in records if r["branch"] == branch]
        assert [(s, v) for s, _, v in histories[f"{branch}/{name}"]] == expected
    curves = levels[2].results["reinit"].training.curves
    said = [(s, v) for s, _, v in histories["level_02/reinit/test_accuracy"]]
    assert said == list(zip(curves.step, curves.test_accuracy, strict=True))
    assert [s for s, _, _ in histories["level_00/dense/train_loss"]] == [10, 20]


@mlflow
def test_without_validation_examples_there_are_no_metrics_of_them() -> None:
    spec = replace(SPEC, data=DataSpec(validation=0), levels=0)
    (level,) = find_tickets(spec)
    found = {metric.key for metric in level_metrics(level, level.records)}
    assert not {key for key in found if "validation" in key or "early_stop" in key}
    assert {"dense/final_test_accuracy", "level_00/dense/test_accuracy"} <= found


@mlflow
def test_test_accuracy_is_a_metric_at_those_steps_that_have_it() -> None:
    train = replace(SPEC.train, lr=0.1, evaluate_every=1, evaluate_test="best")
    (level,) = find_tickets(replace(SPEC, train=train, levels=0))
    curves = level.results["dense"].training.curves
    known = [s for s, a in zip(curves.step, curves.test_accuracy, strict=True) if a is not None]
    assert 0 < len(known) < len(curves.step)
    metrics = [m for m in level_metrics(level, level.records) if m.key.endswith("/test_accuracy")]
    assert [metric.step for metric in metrics] == known


@mlflow
def test_what_was_not_measured_is_no_metric(levels: list[LevelResult]) -> None:
    ticket, reinit = levels[1].records
    records = [
        {**ticket, "travel": 0.1, "travel_inside": 0.0, "travel_outside": None},
        {k: v for k, v in reinit.items() if k != "travel"},
    ]
    found = {metric.key: metric.value for metric in level_metrics(levels[1], records)}
    assert (found["ticket/travel"], found["ticket/travel_inside"]) == (0.1, 0.0)
    assert {"ticket/travel_outside", "reinit/travel"}.isdisjoint(found)
    assert "ticket/mask_overlap_chance" in found
    assert "ticket/sign_agreement" in found


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
    again = open_publisher(publisher.uri, _name(publisher), "about it")
    assert again == publisher
    publish(again, levels)
    publish(again, levels[:1])
    assert everything(publisher) == before
    assert publisher.runs()[digest_of(levels)].levels == 3


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
        patch.setattr("tracking.publish.publisher.params", lambda spec: [Param("a//b", "")])
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
    trials = [held for held in everything(publisher).values() if held[1]]  # type: ignore[index]
    ((status, params, histories, files),) = trials  # type: ignore[misc]
    assert status == "FINISHED"
    assert params["spec_digest"] == digest_of(levels)
    assert [step for step, _, _ in histories["density"]] == [0, 1, 2]
    assert [step for step, _, _ in histories["level_00/dense/train_loss"]] == [10, 20]
    assert len(files) == 3 * 4


@mlflow
def test_report_and_verdict_go_to_the_studys_own_run_and_again_change_nothing(
    publisher: Publisher, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    client, asked = MlflowClient(publisher.uri), list[str]()

    def publish(digest: str, count: float) -> None:
        def report() -> Path:
            asked.append(digest)
            return drawn(tmp_path)

        said = {"verdicts/winning": count}
        publisher.publish_study(digest * 64, report, said, {"verdict": "winning"})

    for digest, count in (("a", 2.0), ("a", 2.0), ("b", 1.0), ("b", 1.0), ("c", 1.0)):
        publish(digest, count)
    assert asked == ["a", "b", "c"]
    run = client.get_run(publisher.study_run)
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "winning")
    assert run.data.metrics["verdicts/winning"] == 1.0
    history = client.get_metric_history(run.info.run_id, "verdicts/winning")
    assert [metric.value for metric in history] == [2.0, 1.0]
    assert artifacts(client, run.info.run_id) == {
        "report.html", "figures", "figures/accuracy.svg",
    }  # fmt: skip
    publish("c", 1.0)
    assert client.get_run(publisher.study_run).info.end_time == run.info.end_time


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

    def publish() -> None:
        said = {"verdicts/winning": 1.0}
        publisher.publish_study("a" * 64, lambda: drawn(tmp_path), said, {"verdict": "winning"})

    client = MlflowClient(publisher.uri)
    for call in ("log_artifact", "log_batch", "set_terminated"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, killed)
            with pytest.raises(KeyboardInterrupt):
                publish()
        assert client.get_run(publisher.study_run).info.status == "RUNNING"
    publish()
    run = client.get_run(publisher.study_run)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"verdicts/winning": 1.0})
    assert len(client.get_metric_history(run.info.run_id, "verdicts/winning")) == 1
    assert "report.html" in artifacts(client, run.info.run_id)


@mlflow
def test_metrics_of_a_study_that_an_older_version_finished_are_replaced(
    publisher: Publisher, tmp_path: Path
) -> None:
    """The older version stamped metrics with the time, and MLflow shows the latest stamp."""
    from mlflow import MlflowClient

    client = MlflowClient(publisher.uri)
    started = client.get_run(publisher.study_run).info.start_time
    client.log_metric(publisher.study_run, "verdicts/winning", 2.0, started + 5000)
    client.set_terminated(publisher.study_run, end_time=started + 6000)
    said = {"verdicts/winning": 1.0}
    publisher.publish_study("a" * 64, lambda: drawn(tmp_path), said, {"verdict": "winning"})
    assert client.get_run(publisher.study_run).data.metrics["verdicts/winning"] == 1.0
