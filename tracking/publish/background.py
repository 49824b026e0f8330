"""Publishing off the training path: a worker hands in its levels and goes on training.

One thread of the process writes them, in the order in which they came. Where the server fails, or
is slower than training, the rest of that trial is left to `lth sync`, which finds it in the store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from queue import Full, Queue
from typing import Any

from lth_core.errors import TrackingError
from lth_core.redaction import without_secrets
from lth_core.results import LevelResult
from lth_core.store.decode import in_short
from tracking.publish.payload import level_files
from tracking.publish.publisher import Publisher, Status, TrialRun
from tracking.publish.runs import Held

logger = logging.getLogger("lth")

QUEUE = 64
"""Calls that may wait."""
QUEUE_BYTES = 256 * 2**20
"""Of the tickets of waiting calls."""
QUIET = 30.0
"""Seconds in which a server that failed is not asked again."""


@dataclass(slots=True)
class _Trial:
    """What is known of a trial.

    left: nothing more of it is taken in; failed: nothing more of it is written.
    """

    key: str
    held: Held | None = None
    left: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    """Something to publish: what it makes of the trial's run, and the bytes that it keeps."""

    trial: _Trial
    act: Callable[[Held | None], Held]
    size: int


class Background:
    """Publishes in a thread of its own; a call returns at once, whatever the server does.

    Args:
        publisher: writes.
        quiet: seconds in which a server that failed is not asked again.
    """

    def __init__(self, publisher: Publisher, quiet: float = QUIET) -> None:
        self._publisher, self._quiet = publisher, quiet
        self._queue: Queue[_Call] = Queue(QUEUE)
        self._trial = _Trial("")
        self._not_before = 0.0
        self._warned = False
        threading.Thread(target=self._work, name="lth-publish", daemon=True).start()

    def publish(
        self, run: TrialRun, level: LevelResult, records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Have a level published, after those of the trial that came before.

        Its ticket is made here, of what training has at hand: the thread holds no tensors.
        """
        if level.level == 0:
            self._trial = _Trial(run.key)
        trial = self._of(run)
        if not self._is_left(trial):
            files = level_files(level)
            write = self._publisher.publish
            self._put(_Call(
                trial, lambda held: write(run, level, records, held, files),
                sum(map(len, files.values())),
            ))  # fmt: skip

    def finish(self, run: TrialRun, status: Status = "FINISHED", reason: str = "") -> None:
        """Have a trial's run ended, after its levels; not as finished where one of them is left.

        Args:
            reason: why it failed.
        """
        # A failure is said also where levels are left: the store does not know of it.
        trial = self._of(run) if status == "FINISHED" else _Trial(run.key)
        if not self._is_left(trial):
            end = self._publisher.finish
            self._put(_Call(trial, lambda held: end(run, status, reason, held), 0))

    def drain(self, seconds: float) -> bool:
        """Wait until all that was handed in is written or left, at most so long; whether it is."""
        with self._queue.all_tasks_done:
            return self._queue.all_tasks_done.wait_for(
                lambda: not self._queue.unfinished_tasks, seconds
            )

    def _of(self, run: TrialRun) -> _Trial:
        if self._trial.key != run.key:
            self._trial = _Trial(run.key)
        return self._trial

    def _is_left(self, trial: _Trial) -> bool:
        trial.left = trial.left or trial.failed or self._is_quiet()
        return trial.left

    def _is_quiet(self) -> bool:
        return time.monotonic() < self._not_before

    def _put(self, call: _Call) -> None:
        with self._queue.mutex:
            waiting = sum(other.size for other in self._queue.queue)
        try:
            if waiting and waiting + call.size > QUEUE_BYTES:
                raise Full
            self._queue.put_nowait(call)
        except Full:
            call.trial.left = True
            self._warn(f"tracking.uri: {self._publisher.uri} is slower than training")

    def _work(self) -> None:
        while True:
            call = self._queue.get()
            self._do(call)
            del call  # its ticket is not kept while the next is waited for
            self._queue.task_done()

    def _do(self, call: _Call) -> None:
        trial = call.trial
        trial.failed = trial.failed or self._is_quiet()
        if trial.failed:
            return
        try:
            trial.held = call.act(trial.held)
        except TrackingError as error:
            self._fail(trial, str(error))
        # Whatever it is: were this thread to end, each worker would wait for it in vain at its end.
        except Exception as error:  # noqa: BLE001
            said = f"tracking.uri: {self._publisher.uri} failed a call: {in_short(error)}"
            self._fail(trial, without_secrets(said))

    def _fail(self, trial: _Trial, why: str) -> None:
        trial.failed = True
        self._not_before = time.monotonic() + self._quiet
        self._warn(why)

    def _warn(self, why: str) -> None:
        if not self._warned:
            logger.warning("%s; `lth sync` publishes what is missing", why)
        self._warned = True


@lru_cache(maxsize=4)
def background_of(publisher: Publisher) -> Background:
    """This process's background of a publisher; a reused worker keeps it."""
    return Background(publisher)
