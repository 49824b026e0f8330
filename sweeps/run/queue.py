"""Queue of a sweep's work: order of items, waits for shared trainings, retries.

It depends on no backend: Ray Tune (`sweeps.run.tune`) and this process (`sweeps.run.serial`) take
items from the same queue.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lth_core.errors import StoreError
from lth_core.jobs.recipes import Job
from sweeps.run.store_health import StoreHealth

RETRIES = 2
"""Largest number of retries of an item without progress, after its worker died or the store
failed."""
LOOKUP_PAUSE_RATIO = 10
"""Ratio of the pause after a lookup in the store to the duration of the lookup."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """Work of one worker at a time: a trial, or a pack of trials that train together.

    config: configuration for the worker.
    shared: trainings of the item that other items need too.
    """

    config: dict[str, Any]
    shared: Sequence[Job]


class WorkQueue:
    """Queue of items; an item waits while another runs a training that both need.

    An item whose worker died (a preempted instance, a kill) is retried, without limit while each
    try makes progress. While the store fails, the queue gives no item.

    Args:
        items: items in the order in which they are given.
        is_stored: whether the store has a training and all its rewind points.
        progress: gives a value that changes when an item makes progress in the store.
        following: gives the items that follow a finished one; after a StoreError it is asked again.
        health: circuit breaker of the store.
    """

    def __init__(
        self,
        items: Iterable[WorkItem],
        is_stored: Callable[[Job], bool],
        progress: Callable[[WorkItem], object] = lambda item: None,
        following: Callable[[WorkItem], Iterable[WorkItem]] = lambda item: (),
        health: StoreHealth | None = None,
    ) -> None:
        self._is_stored, self._progress, self._following = is_stored, progress, following
        self._health = health or StoreHealth()
        self._ready = deque(items)
        self._waiting: dict[Job, list[WorkItem]] = {}
        """Waiting items, by the training that they wait for."""
        self._finished = deque[WorkItem]()
        """Finished items of which the following ones are not known yet."""
        self._running: dict[str, WorkItem] = {}
        """Running items, by the key of `take`."""
        self._training: Counter[str] = Counter()
        """Number of running items with a shared training, by the training's digest."""
        self._trained: set[str] = set()
        """Digests of `_training` that the store has."""
        self._next_lookup = 0.0
        self._deaths: Counter[str] = Counter()
        """Number of deaths, by the item and its progress at the death."""

    @property
    def store_error(self) -> str:
        """The store's failure that ended the queue; empty while the store can be used."""
        return self._health.error

    @property
    def is_pending(self) -> bool:
        """Whether items are left to be taken."""
        return bool(self._ready or self._waiting or self._finished)

    @property
    def is_exhausted(self) -> bool:
        """Whether no item is pending or running."""
        return not (self.is_pending or self._running)

    def take(self, key: str) -> WorkItem | None:
        """The next item, which runs under a key until `finish`; None while no item is ready."""
        self._release_waiting()
        if self._finished and self._health.is_closed():
            self._add_following()
        while self._ready and self._health.is_closed():
            item = self._ready.popleft()
            needed = next((job for job in item.shared if self._is_being_trained(job)), None)
            if needed:
                self._waiting.setdefault(needed, []).append(item)
                continue
            self._running[key] = item
            self._training.update(job.digest for job in item.shared)
            return item
        self._drop_without_store()
        return None

    def finish(self, key: str, *, died: bool = False, store_error: str = "") -> None:
        """Record that an item has ended.

        Args:
            died: the item's worker died, or was interrupted.
            store_error: failure of the store that ended the item; empty if there was none.
        """
        item = self._running.pop(key)
        self._training -= Counter(job.digest for job in item.shared)
        self._trained &= self._training.keys()
        self._next_lookup = 0
        if store_error:
            self._health.trip()
        if (died or store_error) and self._should_retry(item):
            self._ready.appendleft(item)
        elif store_error:
            self._health.give_up(store_error)
        else:
            self._finished.append(item)
            self._add_following()
        self._drop_without_store()

    def _add_following(self) -> None:
        """Add the items that follow finished ones, unless the store fails."""
        while self._finished:
            try:
                following = list(self._following(self._finished[0]))
            except StoreError:
                self._health.trip()
                return
            self._finished.popleft()
            self._ready.extend(following)

    def _should_retry(self, item: WorkItem) -> bool:
        try:
            progress = self._progress(item)
        except StoreError:
            self._health.trip()
            progress = None
        key = repr((item.config.get("names"), progress))
        self._deaths[key] += 1
        return self._deaths[key] <= RETRIES

    def _drop_without_store(self) -> None:
        """Drop all items if the store failed for too long: each would fail."""
        if self._health.error:
            self._ready.clear()
            self._waiting.clear()
            self._finished.clear()

    def _is_being_trained(self, job: Job) -> bool:
        return self._training[job.digest] > 0 and job.digest not in self._trained

    def _release_waiting(self) -> None:
        """Release the items whose training is stored, or is run by no item any more."""
        started = time.monotonic()
        if started < self._next_lookup:
            return
        try:
            self._trained |= {
                job.digest
                for job in self._waiting
                if self._training[job.digest] and self._is_stored(job)
            }
        except StoreError:  # the items wait for the next lookup
            self._health.trip()
        for job in [job for job in self._waiting if not self._is_being_trained(job)]:
            self._ready.extendleft(reversed(self._waiting.pop(job)))
        self._next_lookup = time.monotonic() + LOOKUP_PAUSE_RATIO * (time.monotonic() - started)
