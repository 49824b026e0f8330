"""Verdicts, overlaps and latencies in MLflow: cells can be filtered by verdicts, and writing them
again changes nothing."""

from collections.abc import Iterator
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec, find_tickets
from lth_core.analysis.cells import cells
from lth_core.analysis.verdict import P, Verdict, verdicts
from lth_core.spec import sha256
from tracking.publish import names
from tracking.publish.cell_run import CellRun
from tracking.publish.publisher import Publisher, open_publisher
from tracking.publish.runs import PublishedRun
from tracking.publish.study_run import StudyContent
from tracking.publish.trial_run import TrialRun

pytestmark = pytest.mark.mlflow

ACCURACY = {"dense": 0.96, "ticket": 0.97, "reinit": 0.9}
OVER_REINIT = P(0.004, 0.01)


def rows_of(level: int) -> list[dict[str, Any]]:
    """Records of a level of three hand-made seeds, and of their dense runs."""
    return [
        {"seed": seed, "method": "imp", "level": at, "branch": branch, "density": 0.8**at,
         "steps": 10, "when": "after", "early_stop_step": 5, "final_test_accuracy": ACCURACY[branch] + seed / 1000}
        for seed in range(-1, 2)
        for at, branch in ((0, "dense"), (level, "ticket"), (level, "reinit"))
    ]  # fmt: skip


def verdict(level: int, word: str, reinit: P | None = OVER_REINIT) -> Verdict:
    """A verdict with this word and p over reinit, made from three hand-made seeds."""
    (found,) = verdicts(rows_of(level), ["seed"])
    return replace(found, verdict=word, p_matching=P(0.02, 0.03), p_reinit=reinit)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture
def publisher(database: str, tmp_path: Path) -> Publisher:
    """A study of its own in the SQLite file that these tests share."""
    return open_publisher(database, tmp_path.name, "about it")


SPEC = TicketSpec(data=DataSpec(fraction=0.3), model=ModelSpec(widths=(4,)),
                  train=TrainSpec(steps=2, evaluate_every=2), levels=0)  # fmt: skip
(CELL,) = cells(rows_of(1), ["seed"])


def judge(publisher: Publisher, said: dict[str, list[Verdict]]) -> dict[str, PublishedRun]:
    """Publish cells with these verdicts."""
    known = publisher.cells()
    for key, held in said.items():
        run = CellRun(key=key, name=key, fields={}, spec=SPEC)
        publisher.publish_cell(run, CELL, held, known.get(key), "FINISHED", 0)
    return publisher.cells()


@pytest.mark.long
def test_cells_are_filtered_by_their_verdict(publisher: Publisher) -> None:
    from mlflow import MlflowClient

    said = {
        "good": [verdict(1, "matching", None), verdict(2, "winning"), verdict(3, "not matching")],
        "bad": [verdict(1, "not matching", P(0.35, 0.7))],
        "few": [replace(verdict(1, "too few replicates", None), p_matching=None)],
        "open": [verdict(1, "undecided")],
    }
    good = judge(publisher, said)["good"]
    client = MlflowClient(publisher.uri)

    def filtered(query: str) -> list[str]:
        runs = client.search_runs([publisher.experiment], query)
        return sorted(run.data.tags[names.CELL] for run in runs)

    def history(name: str) -> list[tuple[int, float]]:
        found = client.get_metric_history(good.id, name)
        return sorted((metric.step, metric.value) for metric in found)

    assert filtered("tags.verdict = 'winning'") == ["good"]
    assert filtered("tags.verdict = 'too few replicates'") == ["few"]
    assert filtered("metrics.`verdict/p_reinit_adjusted` < 0.05") == ["good", "open"]
    assert filtered("metrics.sparsest_winning < 0.65") == ["good"]
    assert filtered("tags.`verdict.level_03` = 'not matching'") == ["good"]
    assert history("verdict/matching") == [(1, 1.0), (2, 1.0), (3, 0.0)]
    assert history("verdict/winning") == [(1, 0.0), (2, 1.0), (3, 0.0)]
    assert history("verdict/p_matching_adjusted") == [(1, 0.03), (2, 0.03), (3, 0.03)]
    assert history("verdict/p_reinit") == [(2, 0.004), (3, 0.004)]
    assert history("sparsest_matching") == [(0, 0.64)]
    assert history("accuracy/dense") == [(0, 0.96), (1, 0.96)]
    assert history("interval/ticket_low")[0][1] < history("accuracy/ticket")[0][1]
    assert history("density") == [(0, 1.0), (1, pytest.approx(0.8))]
    assert history("seeds") == [(0, 3.0)]
    (few,) = client.search_runs([publisher.experiment], "tags.verdict = 'too few replicates'")
    assert {name for name in few.data.metrics if "verdict/" in name} == {
        "verdict/matching", "verdict/winning",
    }  # fmt: skip

    judge(publisher, said)
    assert history("verdict/matching") == [(1, 1.0), (2, 1.0), (3, 0.0)], "written twice"
    changed = [verdict(1, "matching", None), verdict(2, "winning", P(0.004, 0.02)), said["good"][2]]
    judge(publisher, {"good": changed})
    assert history("verdict/p_reinit_adjusted") == [(2, 0.01), (2, 0.02), (3, 0.01)]
    judge(publisher, {"good": [verdict(1, "not matching")]})
    assert filtered("tags.verdict = 'winning'") == []
    assert filtered("metrics.sparsest_winning < 0.65") == []


def test_comparisons_of_a_trial_are_written_level_by_level_and_once(publisher: Publisher) -> None:
    from mlflow import MlflowClient

    (level,) = find_tickets(SPEC)
    run = TrialRun(key="alone", name="alone", fields={}, spec=level.spec,
                   cell=CellRun(key="c", name="c", fields={}, spec=SPEC))  # fmt: skip
    held = publisher.publish(run, level, level.records)
    rows = [
        {"branch": "dense", "level": 0, "final_test_accuracy": 0.9},
        {"branch": "ticket", "level": 1, "final_test_accuracy": 0.8, "overlap_seeds": None},
        {"branch": "ticket", "level": 2, "final_test_accuracy": 0.7, "overlap_seeds": 0.25},
    ]
    judged = [verdict(1, "matching"), verdict(2, "not matching")]

    def compare(rows: list[dict[str, Any]]) -> None:
        publisher.publish_compared(publisher.runs()["alone"], judged, rows)

    def history(name: str) -> list[tuple[int, float]]:
        found = MlflowClient(publisher.uri).get_metric_history(held.id, name)
        return sorted((metric.step, metric.value) for metric in found)

    for _ in range(2):
        compare(rows)
    assert history("overlap_seeds/ticket") == [(2, 0.25)]
    assert history("accuracy/dense")[1:] == [(1, 0.9), (2, 0.9)]
    data = MlflowClient(publisher.uri).get_run(held.id).data
    assert (data.metrics["dense_accuracy"], data.metrics["ticket_accuracy"]) == (0.9, 0.8)
    assert (data.metrics["sparsest_matching"], data.tags["verdict"]) == (0.8, "matching")
    compare([*rows[:2], {**rows[2], "overlap_seeds": 0.3, "latency_ms": 2.5}])
    assert history("overlap_seeds/ticket")[-1] == (2, 0.3)
    assert history("latency_ms/ticket") == [(2, 2.5)]


def test_a_density_without_its_verdict_is_taken_back(publisher: Publisher) -> None:
    """A study's, a cell's and a trial's; the trial's own numbers stay, and so do a user's."""
    from mlflow import MlflowClient

    client, (level,) = MlflowClient(publisher.uri), find_tickets(SPEC)
    run = TrialRun(key="alone", name="alone", fields={}, spec=level.spec,
                   cell=CellRun(key="c", name="c", fields={}, spec=SPEC))  # fmt: skip
    trial = publisher.publish(run, level, level.records)
    dense = client.get_run(trial.id).data.metrics["accuracy/dense"]
    client.log_metric(trial.id, "own", 1.0)

    def latest(words: list[str]) -> Iterator[dict[str, float]]:
        judged = [verdict(level + 1, word) for level, word in enumerate(words)]
        (cell,) = judge(publisher, {"good": judged}).keys() - {"c"}
        publisher.publish_compared(publisher.runs()["alone"], judged, [])
        publisher.publish_study(StudyContent(
            digest=sha256(words), description=lambda *_: "", cells={"all": CELL}, axes=[], specs=[],
            verdicts=judged, trials={}, report=lambda: Path(__file__), study_file=b"", ended=0,
            status="FINISHED",
        ))  # fmt: skip
        for each in (trial.id, publisher.cells()[cell].id, publisher.study_run):
            yield client.get_run(each).data.metrics

    for metrics in latest(["winning", "winning"]):
        assert (metrics["sparsest_winning"], metrics["sparsest_matching"]) == (0.64, 0.64)
    for metrics in latest(["matching"]):
        assert (isnan(metrics["sparsest_winning"]), metrics["sparsest_matching"]) == (True, 0.8)
    for metrics in latest(["undecided"]):
        assert isnan(metrics["sparsest_winning"])
        assert isnan(metrics["sparsest_matching"])
    _, cell, _ = latest(["winning"])
    assert cell["sparsest_winning"] == 0.8
    assert isnan(cell["verdict/winning"]), "of the second level"
    metrics = client.get_run(trial.id).data.metrics
    assert (metrics["accuracy/dense"], metrics["own"]) == (dense, 1.0)
