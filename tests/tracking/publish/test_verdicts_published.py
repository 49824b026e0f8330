"""Verdicts, overlaps and latencies in MLflow: runs can be filtered by verdicts, and writing them again
changes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec, find_tickets
from lth_core.analysis.verdict import P, Verdict, verdicts
from tracking.publish import names
from tracking.publish.publisher import Publisher, TrialRun, open_publisher

pytestmark = pytest.mark.mlflow

ACCURACY = {"dense": 0.96, "ticket": 0.97, "reinit": 0.9}
OVER_REINIT = P(0.004, 0.01)


def verdict(level: int, word: str, reinit: P | None = OVER_REINIT) -> Verdict:
    """A verdict with this word and p over reinit, made from three hand-made seeds."""
    rows = [
        {"seed": seed, "method": "imp", "level": at, "branch": branch, "density": 0.8**level, "steps": 10,
         "early_stop_step": 5, "final_test_accuracy": ACCURACY[branch]}
        for seed in range(3)
        for at, branch in ((0, "dense"), (level, "ticket"), (level, "reinit"))
    ]  # fmt: skip
    (found,) = verdicts(rows, ["seed"])
    return replace(found, verdict=word, p_matching=P(0.02, 0.03), p_reinit=reinit)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture
def publisher(database: str, tmp_path: Path) -> Publisher:
    """A study of its own in the SQLite file that these tests share."""
    return open_publisher(database, tmp_path.name, "about it")


def judge(
    publisher: Publisher, said: dict[str, list[Verdict]], rows: Sequence[dict[str, Any]] = ()
) -> None:
    for key, held in publisher.runs().items():
        publisher.publish_compared(held, said.get(key, []), rows)


def test_runs_are_filtered_by_their_verdict(publisher: Publisher) -> None:
    from mlflow import MlflowClient

    spec = TicketSpec(data=DataSpec(fraction=0.3), model=ModelSpec(widths=(4,)),
                      train=TrainSpec(steps=2, evaluate_every=2), levels=0)  # fmt: skip
    (level,) = find_tickets(spec)
    for key in ("good", "bad", "few", "open", "silent"):
        run = TrialRun(key=key, name=key, fields={}, spec=level.spec)
        publisher.publish(run, level, level.records)
    said = {
        "good": [verdict(1, "matching", None), verdict(2, "winning"), verdict(3, "not matching")],
        "bad": [verdict(1, "not matching", P(0.35, 0.7))],
        "few": [replace(verdict(1, "too few replicates", None), p_matching=None)],
        "open": [verdict(1, "undecided")],
    }
    judge(publisher, said)
    client = MlflowClient(publisher.uri)

    def filtered(query: str) -> list[str]:
        return [
            run.data.tags[names.KEY] for run in client.search_runs([publisher.experiment], query)
        ]

    assert filtered("tags.verdict = 'winning'") == ["good"]
    assert filtered("tags.verdict = 'not matching'") == ["bad"]
    assert filtered("tags.verdict = 'undecided'") == ["open"]
    assert filtered("tags.verdict = 'too few replicates'") == ["few"]
    assert sorted(filtered("metrics.`verdict/p_reinit_adjusted` < 0.05")) == ["good", "open"]
    assert filtered("tags.`verdict.level_03` = 'not matching'") == ["good"]
    (good,) = client.search_runs([publisher.experiment], "tags.verdict = 'winning'")

    def history(name: str) -> list[tuple[int, float]]:
        found = client.get_metric_history(good.info.run_id, f"verdict/{name}")
        return sorted((metric.step, metric.value) for metric in found)

    assert history("matching") == [(1, 1.0), (2, 1.0), (3, 0.0)]
    assert history("winning") == [(1, 0.0), (2, 1.0), (3, 0.0)]
    assert history("p_matching") == [(1, 0.02), (2, 0.02), (3, 0.02)]
    assert history("p_matching_adjusted") == [(1, 0.03), (2, 0.03), (3, 0.03)]
    assert history("p_reinit") == [(2, 0.004), (3, 0.004)]
    assert history("p_reinit_adjusted") == [(2, 0.01), (3, 0.01)]
    (few,) = client.search_runs([publisher.experiment], "tags.verdict = 'too few replicates'")
    assert {name.removeprefix("verdict/") for name in few.data.metrics if "verdict/" in name} == {
        "matching", "winning",
    }  # fmt: skip
    assert history("sparsest_matching_density") == [(2, pytest.approx(0.64))]

    judge(publisher, said)
    assert history("matching") == [(1, 1.0), (2, 1.0), (3, 0.0)], "written twice"
    changed = [verdict(1, "matching", None), verdict(2, "winning", P(0.004, 0.02)), said["good"][2]]
    judge(publisher, {"good": changed})
    assert history("p_reinit_adjusted") == [(2, 0.01), (2, 0.02), (3, 0.01), (3, 0.01)]
    judge(publisher, {"good": [verdict(1, "not matching")]})
    assert filtered("tags.verdict = 'winning'") == []


def test_overlaps_and_latencies_are_written_level_by_level_and_once(publisher: Publisher) -> None:
    from mlflow import MlflowClient

    spec = TicketSpec(data=DataSpec(fraction=0.3), model=ModelSpec(widths=(4,)),
                      train=TrainSpec(steps=2, evaluate_every=2), levels=0)  # fmt: skip
    (level,) = find_tickets(spec)
    run = TrialRun(key="alone", name="alone", fields={}, spec=level.spec)
    held = publisher.publish(run, level, level.records)
    rows = [
        {"branch": "dense", "level": 0},
        {"branch": "ticket", "level": 1, "overlap_seeds": None, "overlap_level": 0.5},
        {"branch": "ticket", "level": 2, "overlap_seeds": 0.25, "overlap_level": 0.75},
    ]
    for _ in range(2):
        judge(publisher, {}, rows)
    client = MlflowClient(publisher.uri)

    def history(name: str) -> list[tuple[int, float]]:
        found = client.get_metric_history(held.id, f"ticket/{name}")
        return sorted((metric.step, metric.value) for metric in found)

    assert history("overlap_level") == [(1, 0.5), (2, 0.75)]
    assert history("overlap_seeds") == [(2, 0.25)]
    assert "verdict" not in client.get_run(held.id).data.tags
    judge(publisher, {}, [*rows[:2], {**rows[2], "overlap_seeds": 0.3}])
    assert history("overlap_seeds")[-1] == (2, 0.3)
    measured = {"latency_ms": 2.5, "dense_latency_ms": 4.0, "latency_device": "this machine"}
    judge(publisher, {}, [*rows[:2], {**rows[2], **measured}])
    assert (history("latency_ms"), history("dense_latency_ms")) == ([(2, 2.5)], [(2, 4.0)])
