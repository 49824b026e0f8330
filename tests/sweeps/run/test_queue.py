"""Order of work items, without a backend: its part is played by hand."""

import time
from collections import deque
from typing import Any

import pytest

from lth_core.errors import StoreError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.resolve import resolve
from lth_core.spec import TicketSpec
from sweeps.run.queue import RETRIES, WorkItem, WorkQueue
from sweeps.run.store_health import MAX_OUTAGE, PROBE_INTERVAL, StoreHealth


def dense(seed: int) -> Job:
    return next(levels(resolve(TicketSpec(seed=seed))))["dense"]


def ticket(seed: int) -> Job:
    return list(levels(resolve(TicketSpec(seed=seed, levels=1))))[1]["ticket"]


def taken(queue: WorkQueue, key: str) -> Any:
    """The configuration that is handed out next, if any."""
    item = queue.take(key)
    return item and item.config


def test_items_wait_for_what_another_is_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.run.queue.LOOKUP_PAUSE_RATIO", 0)
    stored: set[str] = set()
    needs = [[dense(0), ticket(0)], [dense(0), ticket(0)], [dense(0)], [dense(1)], []]
    items = [WorkItem({"work": number}, jobs) for number, jobs in enumerate(needs)]
    queue = WorkQueue(items, lambda job: job.digest in stored)
    assert taken(queue, "a") == {"work": 0}
    assert taken(queue, "b") == {"work": 3}
    assert taken(queue, "c") == {"work": 4}
    assert taken(queue, "d") is None
    stored.add(dense(0).digest)
    assert taken(queue, "d") == {"work": 2}
    assert taken(queue, "e") is None
    stored.add(ticket(0).digest)
    queue.finish("c")
    assert taken(queue, "e") == {"work": 1}
    assert taken(queue, "f") is None
    assert not queue.is_exhausted, "something is still running"
    for key in "abde":
        queue.finish(key)
    assert taken(queue, "f") is None
    assert queue.is_exhausted


def test_the_next_item_takes_over_where_the_first_failed() -> None:
    items = [WorkItem({"work": number}, [dense(0)]) for number in range(2)]
    queue = WorkQueue(items, lambda job: False)
    assert taken(queue, "a") == {"work": 0}
    assert taken(queue, "b") is None
    queue.finish("a")  # its loss was not finite: the store has nothing of it
    assert taken(queue, "b") == {"work": 1}


def test_a_finished_item_may_be_followed_by_others() -> None:
    def following(item: WorkItem) -> list[WorkItem]:
        number = item.config["work"]
        return [WorkItem({"work": number + 1}, [])] if number < 2 else []

    queue = WorkQueue([WorkItem({"work": 0}, [])], lambda job: False, following=following)
    for number in range(3):
        assert taken(queue, "a") == {"work": number}
        assert taken(queue, "b") is None
        queue.finish("a")
    assert queue.is_exhausted


def test_items_that_follow_are_asked_for_again_while_the_store_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, asked = Failing(monkeypatch, times=2), list[int]()

    def following(item: WorkItem) -> list[WorkItem]:
        asked.append(item.config["work"])
        if len(asked) < 3:
            raise StoreError("cannot be read")
        return [WorkItem({"work": 1}, [])] if item.config["work"] == 0 else []

    queue = WorkQueue(
        [WorkItem({"work": 0}, [])], lambda job: False, following=following,
        health=StoreHealth(store.probe),
    )  # fmt: skip
    assert taken(queue, "a") == {"work": 0}
    queue.finish("a")
    assert not queue.is_exhausted
    found = []
    while not found and store.now < 60:
        store.now += PROBE_INTERVAL + 1
        found = [item] if (item := taken(queue, "b")) else []
    assert found == [{"work": 1}]
    assert asked == [0, 0, 0]
    queue.finish("b")
    assert queue.is_exhausted


def test_an_item_whose_worker_dies_is_retried_as_long_as_it_makes_progress() -> None:
    steps = iter([0, 10, 20, 30, *[40] * 10])
    queue = WorkQueue([WorkItem({"name": "x"}, [])], lambda job: True, lambda item: next(steps))
    for number in range(4 + 1 + RETRIES):
        assert taken(queue, str(number)) == {"name": "x"}, number
        queue.finish(str(number), died=True)
    assert queue.is_exhausted, "it made no progress and was given up"


class Failing:
    """A store that fails so many probes, on a clock that only tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
        self.left, self.now, self.probes = times, 0.0, 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def probe(self) -> None:
        self.probes += 1
        if self.left > 0:
            self.left -= 1
            raise StoreError("no space left")


def five(store: Failing) -> WorkQueue:
    items = [WorkItem({"name": str(number)}, []) for number in range(5)]
    return WorkQueue(items, lambda job: False, health=StoreHealth(store.probe))


def test_nothing_is_handed_out_while_the_store_fails_and_all_of_it_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Failing(monkeypatch, times=3)
    queue = five(store)
    assert [taken(queue, key) for key in "ab"] == [{"name": "0"}, {"name": "1"}]
    for key in "ab":
        queue.finish(key, store_error="no space left")
    asked = 0
    while (config := taken(queue, "c")) is None:
        asked, store.now = asked + 1, store.now + 1
    assert asked > store.probes == 4, "it is probed now and then, not whenever work is asked for"
    handed = [config]
    while (config := taken(queue, "d")) is not None:
        handed.append(config)
    assert sorted(each["name"] for each in handed) == list("01234")
    assert queue.store_error == ""


def test_queue_gives_up_a_store_that_does_not_recover(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Failing(monkeypatch, times=float("inf"))
    queue = five(store)
    queue.take("a")
    queue.finish("a", store_error="no space left")
    while not queue.is_exhausted:
        assert queue.take("b") is None
        store.now += 1
    assert MAX_OUTAGE < store.now < 2 * MAX_OUTAGE
    assert queue.store_error == "no space left"
    assert not queue.is_pending


def test_queue_gives_up_a_store_that_takes_probes_and_no_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = five(Failing(monkeypatch, times=0))
    for number in range(1 + RETRIES):
        assert taken(queue, str(number)) == {"name": "0"}
        queue.finish(str(number), store_error="refused")
    assert queue.is_exhausted
    assert queue.store_error == "refused"


def test_store_that_fails_the_driver_does_not_end_the_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, failing = Failing(monkeypatch, times=0), True

    def known(job: Job) -> bool:
        if failing:
            raise StoreError("away for a moment")
        return True

    items = [WorkItem({"name": str(n)}, [dense(0)]) for n in range(2)]
    queue = WorkQueue(items, known, lambda item: known(dense(0)), health=StoreHealth(store.probe))
    assert taken(queue, "a") == {"name": "0"}
    assert taken(queue, "b") is None
    queue.finish("a", died=True)
    first = taken(queue, "a")
    assert taken(queue, "b") is None, "the other needs what that one trains"
    failing = False
    store.now += 60
    assert {first["name"], taken(queue, "b")["name"]} == {"0", "1"}


def test_queue_holds_nothing_of_items_that_are_done() -> None:
    stored: set[str] = set()
    items = [WorkItem({"work": n}, [dense(n // 3)]) for n in range(30)]
    queue, running, asked = WorkQueue(items, lambda job: job.digest in stored), deque(), 0
    while not queue.is_exhausted:
        if (config := taken(queue, str(asked))) is not None:
            running.append((str(asked), dense(config["work"] // 3).digest))
            asked += 1
        elif running[0][1] not in stored:  # those that wait for it run beside it
            stored.add(running[0][1])
            queue._next_lookup = 0
        else:
            queue.finish(running.popleft()[0])
    assert asked == 30
    held = [queue._ready, queue._waiting, queue._running, queue._training, queue._trained,
            queue._deaths]  # fmt: skip
    assert [len(each) for each in held] == [0] * 6
