"""Publishing off the training path: calls return at once, order holds, and no hole is made."""

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec, find_tickets
from lth_core.errors import TrackingError
from lth_core.results import LevelResult
from tracking.publish.background import MOST_CALLS, BackgroundPublisher, background_of
from tracking.publish.cell_run import CellRun
from tracking.publish.publisher import Publisher
from tracking.publish.runs import PublishedRun
from tracking.publish.trial_run import TrialRun

SPEC = TicketSpec(data=DataSpec(fraction=0.3), model=ModelSpec(widths=(4,)),
                  train=TrainSpec(steps=2, evaluate_every=2), levels=2, branches=("ticket",))  # fmt: skip


@dataclass
class Recording:
    """A publisher into memory; ``before`` may wait, or raise as a server that is gone would."""

    before: Callable[[], None] = lambda: None
    uri: str = "http://server"
    said: list[tuple[str, object]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def publish(
        self,
        run: TrialRun,
        level: LevelResult,
        records: object,
        published: PublishedRun | None,
        files: Any,
        live: bool,
    ) -> PublishedRun:
        self.before()
        self.threads.add(threading.current_thread().name)
        assert files.keys() >= {"ticket.safetensors", "mask.safetensors"}
        self.said.append((run.name, level.level))
        return PublishedRun("id", 0, "RUNNING", frozenset(), {})

    def finish(
        self, run: TrialRun, status: str, reason: str, published: PublishedRun | None
    ) -> PublishedRun:
        self.before()
        self.said.append((run.name, f"{status} {reason}".strip()))
        return PublishedRun("id", 0, status, frozenset(), {})


@pytest.fixture(scope="module")
def levels() -> list[LevelResult]:
    return list(find_tickets(SPEC))


def fail_once() -> Callable[[], None]:
    """A call that raises the first time, as where a server is away for a moment."""
    errors = [TrackingError("tracking.uri: it is gone")]

    def call() -> None:
        if errors:
            raise errors.pop()

    return call


def background(publisher: Recording, retry_after: float = 600.0) -> BackgroundPublisher:
    return BackgroundPublisher(cast("Publisher", publisher), retry_after)


def trial(name: str) -> TrialRun:
    return TrialRun(key=name, name=name, fields={}, spec=SPEC, cell=CellRun("c", "c", {}, SPEC))


def publish(work: BackgroundPublisher, name: str, levels: Sequence[LevelResult]) -> None:
    for level in levels:
        work.publish(trial(name), level, level.records)
    work.finish(trial(name))


def test_levels_are_written_in_order_by_one_thread_and_then_the_end(
    levels: list[LevelResult],
) -> None:
    publisher = Recording()
    work = background(publisher)
    publish(work, "a", levels)
    publish(work, "b", levels)
    assert work.drain(60)
    assert publisher.said == [
        (name, what) for name in "ab" for what in (0, 1, 2, "FINISHED")
    ]  # fmt: skip
    assert publisher.threads == {"lth-publish"}


def test_slow_server_holds_nothing_up_and_drain_waits_at_most_so_long(
    levels: list[LevelResult],
) -> None:
    """All is handed in, and the wait is over, before the server answers the first call."""
    answers = threading.Event()
    publisher = Recording(before=lambda: (answers.wait(300), None)[1])
    work = background(publisher)
    publish(work, "a", levels)
    assert not work.drain(0.05)
    assert publisher.said == []
    answers.set()
    assert work.drain(60)
    assert len(publisher.said) == 4


def test_after_a_failure_the_trial_is_left_with_one_warning_and_no_further_call(
    levels: list[LevelResult], caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def gone() -> None:
        asked.append(1)
        raise TrackingError("tracking.uri: it is gone")

    work = background(Recording(before=gone))
    publish(work, "a", levels)
    assert work.drain(60)
    publish(work, "b", levels)
    assert work.drain(60)
    assert len(asked) == 1
    assert caplog.messages == ["tracking.uri: it is gone; `lth sync` publishes what is missing"]


def test_next_trial_after_the_pause_is_published_whole_and_the_failed_one_not_in_parts(
    levels: list[LevelResult],
) -> None:
    publisher = Recording(before=fail_once())
    work = background(publisher, retry_after=0.2)
    work.publish(trial("a"), levels[0], levels[0].records)
    assert work.drain(60)
    time.sleep(0.25)  # the server is back in the middle of a trial
    for level in levels[1:]:
        work.publish(trial("a"), level, level.records)
    work.finish(trial("a"))
    publish(work, "b", levels)
    assert work.drain(60)
    assert publisher.said == [("b", 0), ("b", 1), ("b", 2), ("b", "FINISHED")]


def test_trials_of_a_pack_are_published_each_for_itself(levels: list[LevelResult]) -> None:
    """One whose level failed stays open until `lth sync`; all that are interrupted are KILLED."""
    publisher = Recording(before=fail_once())
    work = background(publisher, retry_after=0.1)
    work.publish(trial("a"), levels[0], levels[0].records)
    assert work.drain(60)
    time.sleep(0.15)
    work.publish(trial("b"), levels[0], levels[0].records)
    for level in levels[1:]:
        for name in "abc" if level.level == 1 else "ab":
            work.publish(trial(name), level, level.records)
    for name in "ab":
        work.finish(trial(name))
    for name in "cd":
        work.finish(trial(name), "KILLED")
    assert work.drain(60)
    assert publisher.said == [
        ("b", 0), ("b", 1), ("c", 1), ("b", 2), ("b", "FINISHED"), ("c", "KILLED")
    ]  # fmt: skip


def test_a_failed_trial_is_published_as_failed_even_where_its_levels_are_skipped(
    levels: list[LevelResult],
) -> None:
    publisher = Recording(before=fail_once())
    work = background(publisher, retry_after=0.1)
    work.publish(trial("a"), levels[0], levels[0].records)
    assert work.drain(60)
    time.sleep(0.15)
    work.finish(trial("a"), "FAILED", "its loss is not finite")
    work.finish(trial("b"), "FAILED", "before its first level")
    assert work.drain(60)
    assert publisher.said == [
        ("a", "FAILED its loss is not finite"),
        ("b", "FAILED before its first level"),
    ]


@pytest.mark.slow
def test_full_queue_leaves_the_rest_of_the_trial_and_not_its_beginning(
    levels: list[LevelResult], caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    publisher = Recording(before=lambda: (go_on.wait(300), None)[1])
    work = background(publisher)
    many = [replace(levels[0], level=number) for number in range(MOST_CALLS + 9)]
    records, run = levels[0].records, trial("a")
    for level in many:
        work.publish(run, level, records)
    work.finish(run)
    go_on.set()
    assert work.drain(60)
    written = [what for _, what in publisher.said]
    assert written in (list(range(MOST_CALLS)), list(range(MOST_CALLS + 1))), (
        "one may be in the thread"
    )
    assert caplog.messages == [
        "tracking.uri: http://server is slower than training; `lth sync` publishes what is missing"
    ]


def test_large_tickets_do_not_pile_up(
    levels: list[LevelResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracking.publish.background.MOST_BYTES", 1)
    go_on, begun = threading.Event(), threading.Event()
    publisher = Recording(before=lambda: (begun.set(), go_on.wait(300), None)[-1])
    work = background(publisher)
    work.publish(trial("a"), levels[0], levels[0].records)
    assert begun.wait(60)
    for level in levels[1:]:  # one may wait, were it ever so large
        work.publish(trial("a"), level, level.records)
    go_on.set()
    assert work.drain(60)
    assert publisher.said == [("a", 0), ("a", 1)]


def test_published_levels_are_not_kept_in_memory(levels: list[LevelResult]) -> None:
    work, run = background(Recording()), trial("a")
    work.publish(run, levels[0], levels[0].records)
    assert work.drain(60)
    kept = weakref.ref(run)
    del run
    assert kept() is None


def test_a_process_has_one_background_of_a_publisher() -> None:
    publisher = Publisher("sqlite:////nowhere/mlflow.db", "1", "study")
    assert background_of(publisher) is background_of(replace(publisher))


def test_any_exception_leaves_the_thread_alive_and_is_reported_once_without_secrets(
    levels: list[LevelResult], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter22")
    asked = []

    def broken() -> None:
        asked.append(1)
        if len(asked) < 3:
            raise KeyError("hunter22")

    publisher = Recording(before=broken)
    work = background(publisher, retry_after=0)
    publish(work, "a", levels)
    publish(work, "b", levels)
    assert work.drain(60), "the thread is there for those who wait"
    publish(work, "c", levels)
    assert work.drain(60)
    assert publisher.said[-4:] == [("c", 0), ("c", 1), ("c", 2), ("c", "FINISHED")]
    assert caplog.messages == [
        "tracking.uri: http://server failed a call: KeyError: '***'; "
        "`lth sync` publishes what is missing"
    ]
