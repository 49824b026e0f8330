"""Queue of a sweep's work: what is handed out next, what waits for what, what is retried.

It knows no backend: Ray Tune (`sweeps.run.tune`) and this process (`sweeps.run.serial`) take items
from the same queue.
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
"""Times that an item whose worker died, or whose store failed, is handed out again without having
made progress."""
LOOKUP_SHARE = 10
"""Looking into the store takes at most one part in so many of the time, however slow it is."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """Work of one worker at a time: a trial.

    config: handed to the worker.
    shared: the trainings in it that other items need too.
    """

    config: dict[str, Any]
    shared: Sequence[Job]


class WorkQueue:
    """Hands out items; one that needs what another is training waits until the store has it.

    So a training that several items need is run by the first of them. An item whose worker died (a
    preempted instance, a kill) is handed out again, as often as it makes progress each time. While
    the store fails, nothing is handed out.

    Args:
        items: in the order in which they are handed out.
        known: whether the store has a training and all its rewind points.
        progress: a value that differs once an item has made progress in the store.
        following: the items that follow a finished one.
        health: breaker of the store.
    """

    def __init__(
        self,
        items: Iterable[WorkItem],
        known: Callable[[Job], bool],
        progress: Callable[[WorkItem], object] = lambda item: None,
        following: Callable[[WorkItem], Iterable[WorkItem]] = lambda item: (),
        health: StoreHealth | None = None,
    ) -> None:
        self._known, self._progress, self._following = known, progress, following
        self._health = health or StoreHealth()
        self._ready = deque(items)
        self._waiting: dict[Job, list[WorkItem]] = {}
        """By the training that they wait for."""
        self._running: dict[str, WorkItem] = {}
        """By the key that they were taken under."""
        self._training: Counter[str] = Counter()
        """Digests of the shared trainings in the running items."""
        self._trained: set[str] = set()
        """Those of `_training` that were seen in the store."""
        self._next_lookup = 0.0
        self._deaths: Counter[str] = Counter()
        """By an item's progress when its worker died."""

    @property
    def store_error(self) -> str:
        """Why the store was given up, and all remaining work with it; empty until then."""
        return self._health.error

    @property
    def is_pending(self) -> bool:
        """Whether items are still to be handed out."""
        return bool(self._ready or self._waiting)

    @property
    def is_exhausted(self) -> bool:
        """Whether no item is pending or running."""
        return not (self.is_pending or self._running)

    def take(self, key: str) -> WorkItem | None:
        """The next item, which runs under a key until `finish`; None while all others wait."""
        self._release_waiting()
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
            died: its worker died, or was interrupted.
            store_error: the store's, where that ended it.
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
            self._ready.extend(self._following(item))
        self._drop_without_store()

    def _should_retry(self, item: WorkItem) -> bool:
        try:
            progress = self._progress(item)
        except StoreError:
            self._health.trip()
            progress = None
        now = repr((item.config.get("name"), progress))
        self._deaths[now] += 1
        return self._deaths[now] <= RETRIES

    def _drop_without_store(self) -> None:
        """Drop all items once the store is given up: each would fail alike."""
        if self._health.error:
            self._ready.clear()
            self._waiting.clear()

    def _is_being_trained(self, job: Job) -> bool:
        return self._training[job.digest] > 0 and job.digest not in self._trained

    def _release_waiting(self) -> None:
        """Make items ready whose training the store has by now, or which no item trains."""
        begun = time.monotonic()
        if begun < self._next_lookup:
            return
        try:
            self._trained |= {
                job.digest
                for job in self._waiting
                if self._training[job.digest] and self._known(job)
            }
        except StoreError:  # waiting items can wait longer
            self._health.trip()
        for job in [job for job in self._waiting if not self._is_being_trained(job)]:
            self._ready.extendleft(reversed(self._waiting.pop(job)))
        self._next_lookup = time.monotonic() + LOOKUP_SHARE * (time.monotonic() - begun)
