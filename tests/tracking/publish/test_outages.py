"""A server that is down, slow or broken: training goes on, nothing is lost, nothing is doubled."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from servers_mlflow import FaultyServer, contents

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec, find_tickets
from lth_core.errors import TrackingError
from lth_core.results import LevelResult
from tracking.publish.background import BackgroundPublisher
from tracking.publish.cell_run import CellRun
from tracking.publish.publisher import Publisher, open_publisher
from tracking.publish.trial_run import TrialRun

pytestmark = [pytest.mark.mlflow, pytest.mark.long]

SPEC = TicketSpec(data=DataSpec(fraction=0.3), model=ModelSpec(widths=(8,)),
                  train=TrainSpec(steps=8, evaluate_every=4), levels=2, branches=("ticket",))  # fmt: skip
PATIENCE = 240
"""Seconds for what takes a few on a machine with nothing else to do."""


@pytest.fixture(scope="module")
def levels() -> list[LevelResult]:
    return list(find_tickets(SPEC))


@pytest.fixture
def publisher(faulty: FaultyServer, tmp_path: Path) -> Publisher:
    """A study of its own behind the server that may fail."""
    return open_publisher(faulty.uri, tmp_path.name, "about it")


@pytest.fixture(scope="module")
def undisturbed(
    server: str, levels: list[LevelResult], tmp_path_factory: pytest.TempPathFactory
) -> tuple[object, ...]:
    """Content of a trial's run where the server had no fault."""
    publisher = open_publisher(server, tmp_path_factory.mktemp("undisturbed").name, "about it")
    everything(publisher, levels)
    return contents(server, publisher.experiment)["a"]


def trial(key: str = "a") -> TrialRun:
    return TrialRun(
        key=key,
        name=key,
        fields={},
        spec=SPEC,
        cell=CellRun(key="c", name="c", fields={}, spec=SPEC),
    )


def everything(publisher: Publisher, levels: list[LevelResult]) -> None:
    """Publish the trial as `lth sync` does."""
    published = publisher.runs().get("a")
    for level in levels:
        published = publisher.publish(trial(), level, level.records, published)
    publisher.finish(trial(), published=published)


@pytest.mark.parametrize(
    ("fault", "calls"),
    [
        ("down", 0),
        ("lost", 2),
        ("broken", 5),
        ("lost", 14),
        *(
            pytest.param(*said, marks=pytest.mark.long)
            for said in [("broken", 2), ("lost", 5), ("lost", 7), ("down", 8)]
        ),
    ],
    ids=lambda said: str(said),
)
def test_next_sync_repairs_a_fault_that_comes_after_some_calls(
    fault: str,
    calls: int,
    faulty: FaultyServer,
    server: str,
    publisher: Publisher,
    levels: list[LevelResult],
    undisturbed: tuple[object, ...],
) -> None:
    """`lost`: the server does what it is asked, and each answer is lost, a new run's too."""
    faulty.fail_after(calls, fault)
    begun = time.monotonic()
    with pytest.raises(TrackingError, match="does not answer as MLflow should"):
        everything(publisher, levels)
    assert time.monotonic() - begun < 60
    faulty.fault = "none"
    for _ in range(2):
        everything(publisher, levels)
    assert contents(server, publisher.experiment) == {"a": undisturbed}


@pytest.mark.parametrize("fault", ["slow", "down", "broken", "lost"])
def test_training_does_not_wait_and_nothing_is_lost_or_published_twice(
    fault: str,
    faulty: FaultyServer,
    server: str,
    publisher: Publisher,
    levels: list[LevelResult],
    undisturbed: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(PATIENCE))  # who asks does not give up
    work = BackgroundPublisher(publisher)
    work.publish(trial(), levels[0], levels[0].records)
    assert work.drain(PATIENCE)
    faulty.fault, faulty.delay = fault, 1
    faulty.answers.clear()
    for level in levels[1:]:
        work.publish(trial(), level, level.records)
    work.finish(trial())
    assert not work.drain(0.1), "all was handed in while the server kept the first call waiting"
    faulty.answers.set()
    assert work.drain(0.2 if fault == "slow" else PATIENCE) == (fault != "slow")
    faulty.fault = "none"
    assert work.drain(PATIENCE)
    everything(publisher, levels)
    assert contents(server, publisher.experiment) == {"a": undisturbed}


def test_no_other_trial_calls_an_unreachable_server_for_a_while(
    faulty: FaultyServer, publisher: Publisher, levels: list[LevelResult]
) -> None:
    work = BackgroundPublisher(publisher, retry_after=600)
    faulty.fault = "down"
    for key in ("a", "b", "c"):
        work.publish(trial(key), levels[0], levels[0].records)
        assert work.drain(PATIENCE)
        if key == "a":
            asked = faulty.asked
    assert faulty.asked == asked


def test_level_is_never_published_over_a_hole(
    publisher: Publisher, levels: list[LevelResult]
) -> None:
    with pytest.raises(TrackingError, match="a: level 1 cannot be published before level 0"):
        publisher.publish(trial(), levels[1], levels[1].records)
    published = publisher.publish(trial(), levels[0], levels[0].records)
    with pytest.raises(TrackingError, match="level 2 cannot be published before level 1"):
        publisher.publish(trial(), levels[2], levels[2].records, published)
    assert publisher.runs()["a"].levels == 1


def test_failed_trial_shows_why_and_finishes_when_a_later_sweep_succeeds(
    publisher: Publisher, levels: list[LevelResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-password")
    published = publisher.publish(trial(), levels[0], levels[0].records)
    publisher.finish(trial(), "FAILED", "the loss is nan, planted-password", published)
    client = MlflowClient(publisher.uri)
    run = client.get_run(published.id)
    assert (run.info.status, run.data.tags["lth.failure"]) == ("FAILED", "the loss is nan, ***")
    everything(publisher, levels)
    run = client.get_run(published.id)
    assert run.info.status == "FINISHED"
    assert "lth.failure" not in run.data.tags
    publisher.finish(trial(), "FAILED", "another sweep's")
    assert client.get_run(published.id).info.status == "FINISHED"


def test_run_that_was_deleted_under_a_publisher_is_found_or_made_again(
    publisher: Publisher, levels: list[LevelResult], undisturbed: tuple[object, ...], server: str
) -> None:
    from mlflow import MlflowClient

    published = publisher.publish(trial(), levels[0], levels[0].records)
    MlflowClient(server).delete_run(published.id)
    with pytest.raises(TrackingError, match="level 1 cannot be published before level 0"):
        publisher.publish(trial(), levels[1], levels[1].records, published)
    everything(publisher, levels)
    assert contents(server, publisher.experiment) == {"a": undisturbed}


def test_duplicate_runs_that_a_kill_left_become_one(
    publisher: Publisher, levels: list[LevelResult], undisturbed: tuple[object, ...], server: str
) -> None:
    from mlflow import MlflowClient

    first = publisher.publish(trial(), levels[0], levels[0].records)
    MlflowClient(server).create_run(publisher.experiment, tags={"lth.spec_digest": "a"})
    assert publisher.runs()["a"].id == first.id
    everything(publisher, levels)
    assert contents(server, publisher.experiment) == {"a": undisturbed}


def test_version_of_another_machine_does_not_stop_a_trial_begun_elsewhere(
    publisher: Publisher, levels: list[LevelResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Params cannot be changed; a worker was killed after it had written them."""
    from mlflow import MlflowClient

    published = publisher.publish(trial(), levels[0], levels[0].records)
    MlflowClient(publisher.uri).set_tag(published.id, "lth.levels", "0")
    monkeypatch.setattr("tracking.publish.payload.setting_text", lambda value: "another")
    everything(publisher, levels)
    assert publisher.runs()["a"].levels == 3


def test_clocks_that_disagree_do_not_make_doubles(
    publisher: Publisher, levels: list[LevelResult], server: str
) -> None:
    """The later of two runs says it is the earlier: its rival is deleted under a publisher."""
    from mlflow import MlflowClient

    published = publisher.publish(trial(), levels[0], levels[0].records)
    tags = {"lth.spec_digest": "a"}
    early = MlflowClient(server).create_run(publisher.experiment, start_time=1, tags=tags)
    assert publisher.runs()["a"].id == early.info.run_id
    again = publisher.publish(trial(), levels[0], levels[0].records, replace(published, tags={}))
    assert again.id == early.info.run_id
