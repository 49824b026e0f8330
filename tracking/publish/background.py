"""Publishing off the training path: a worker queues its levels and continues to train.

One thread of the process publishes them in order. Where the server fails, or is slower than
training, the rest of that trial is skipped here; `lth sync` publishes it from the store. A trial
that the server refuses holds up no other.
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

from lth_core.errors import TrackingError, exception_text
from lth_core.redaction import without_secrets
from lth_core.results import LevelResult
from tracking.publish.client import RefusedError
from tracking.publish.payload import level_files
from tracking.publish.publisher import Publisher, Status
from tracking.publish.runs import PublishedRun
from tracking.publish.trial_run import TrialRun

logger = logging.getLogger("lth")

MOST_CALLS = 64
"""Largest number of calls in the queue."""
MOST_BYTES = 256 * 2**20
"""Largest number of bytes of tickets in the queue."""
RETRY_AFTER = 30.0
"""Seconds after a failure in which the server is not called."""


@dataclass(slots=True)
class _TrialState:
    """State of a trial's publishing."""

    published: PublishedRun | None = None
    skipped: bool = False
    """Whether no more of its calls are queued."""
    failed: bool = False
    """Whether its queued calls are dropped."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call to the publisher."""

    trial: _TrialState
    make: Callable[[PublishedRun | None], PublishedRun]
    """Function from the run as last answered to the run after the call."""
    size: int
    """Number of bytes of its files."""


class BackgroundPublisher:
    """Publisher in a thread of its own; its methods return at once, whatever the server does.

    Args:
        publisher: carries out the calls.
        retry_after: seconds after a failure in which the server is not called.
    """

    def __init__(self, publisher: Publisher, retry_after: float = RETRY_AFTER) -> None:
        self._publisher, self._retry_after = publisher, retry_after
        self._queue: Queue[_Call] = Queue(MOST_CALLS)
        self._trials: dict[str, _TrialState] = {}
        """Trials of which a level was queued or skipped, by key; those of a pack at once."""
        self._not_before = 0.0
        self._warned = set[type[Exception]]()
        threading.Thread(target=self._run, name="lth-publish", daemon=True).start()

    def publish(
        self, run: TrialRun, level: LevelResult, records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Queue a level, after the trial's earlier ones.

        The ticket's bytes are made here, so that the queue holds no tensors.
        """
        if level.level == 0 or run.key not in self._trials:
            self._trials[run.key] = _TrialState()
        trial = self._trials[run.key]
        if not self._is_skipped(trial):
            files = level_files(level)
            write = self._publisher.publish
            self._put(_Call(
                trial, lambda published: write(run, level, records, published, files, live=True),
                sum(map(len, files.values())),
            ))  # fmt: skip

    def finish(self, run: TrialRun, status: Status = "FINISHED", reason: str = "") -> None:
        """Queue the end of a trial's run, after its levels.

        A finished trial of which a level was skipped stays open, and an interrupted one of which
        nothing was queued is left as it is.

        Args:
            reason: reason of the failure.
        """
        known = self._trials.pop(run.key, None)
        if status == "KILLED" and known is None:
            return
        # A failure is published even after a skipped level, because the store does not record it.
        trial = known if known and status == "FINISHED" else _TrialState()
        if not self._is_skipped(trial):
            end = self._publisher.finish
            self._put(_Call(trial, lambda published: end(run, status, reason, published), 0))

    def drain(self, seconds: float) -> bool:
        """Whether the queue is empty after at most this many seconds of waiting."""
        with self._queue.all_tasks_done:
            return self._queue.all_tasks_done.wait_for(
                lambda: not self._queue.unfinished_tasks, seconds
            )

    def _is_skipped(self, trial: _TrialState) -> bool:
        trial.skipped = trial.skipped or trial.failed or self._is_paused()
        return trial.skipped

    def _is_paused(self) -> bool:
        return time.monotonic() < self._not_before

    def _put(self, call: _Call) -> None:
        with self._queue.mutex:
            queued = sum(other.size for other in self._queue.queue)
        try:
            if queued and queued + call.size > MOST_BYTES:
                raise Full
            self._queue.put_nowait(call)
        except Full:
            call.trial.skipped = True
            self._warn(f"tracking.uri: {self._publisher.uri} is slower than training")

    def _run(self) -> None:
        while True:
            call = self._queue.get()
            self._carry_out(call)
            del call  # frees its ticket while the thread waits for the next call
            self._queue.task_done()

    def _carry_out(self, call: _Call) -> None:
        trial = call.trial
        trial.failed = trial.failed or self._is_paused()
        if trial.failed:
            return
        try:
            trial.published = call.make(trial.published)
        except RefusedError as error:
            trial.failed = True
            self._warn(str(error), RefusedError)
        except TrackingError as error:
            self._fail(trial, str(error))
        # A server's answer may make MLflow's client raise anything. If that ended this thread,
        # `drain` would wait in vain; the error is printed, and `lth sync` publishes the trial.
        except Exception as error:  # noqa: BLE001
            reason = f"tracking.uri: {self._publisher.uri} failed a call: {exception_text(error)}"
            self._fail(trial, without_secrets(reason))

    def _fail(self, trial: _TrialState, reason: str) -> None:
        trial.failed = True
        self._not_before = time.monotonic() + self._retry_after
        self._warn(reason)

    def _warn(self, reason: str, kind: type[Exception] = TrackingError) -> None:
        """Log the first failure of a kind."""
        if kind not in self._warned:
            logger.warning("%s; `lth sync` publishes what is missing", reason)
        self._warned.add(kind)


@lru_cache(maxsize=4)
def background_of(publisher: Publisher) -> BackgroundPublisher:
    """The process's one background publisher of a publisher: a reused worker keeps its queue."""
    return BackgroundPublisher(publisher)
