"""Progress of a sweep: a bar on the terminal, and an entry in the store for `lth status`."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from lth_core.errors import StoreError
from lth_core.store import Store
from lth_core.store.locks import this_process
from sweeps.store.status import SILENT_AFTER, Status, save_status

SAVE_INTERVAL = 5.0
"""Least seconds between two saves of the status."""
SAVE_PAUSE_RATIO = 10
"""Least ratio of the time between two saves to the duration of a save, which delays the sweep. With
a slow store, a status is still saved before readers count the sweep as killed."""
PACE_SECONDS = 600.0
"""Seconds over which the pace is averaged."""


class SweepProgress:
    """Counts of the trials and levels of a sweep, shown and stored as they change.

    Args:
        trials: number of trials of the study, finished ones included.
        done: number of trials that were finished before the sweep.
        levels: number of levels to run.
        live: draw a bar on a terminal, from a thread; else print a line for each tenth.
    """

    def __init__(
        self, study: str, store: Store, console: Console, trials: int, done: int, levels: int,
        live: bool = True,
    ) -> None:  # fmt: skip
        self._study, self._store, self._console = study, store, console
        self._trials, self._done_before, self._total = trials, done, levels
        self._ended, self._levels, self._running = 0, 0, 0
        self._reached: dict[str, int] = {}
        """Number of levels of each running trial."""
        self._times = deque[float]()
        """Times at which the latest levels ended."""
        self.failed: dict[str, str] = {}
        """Reasons of failures, by trial or sample."""
        self.store_error = ""
        """The latest failure of the store."""
        self._started = self._saved = self._due = time.monotonic()
        self._live = live and console.is_terminal
        self._bar = _bar(console)
        self._task = self._bar.add_task("starting", total=levels)

    def __enter__(self) -> SweepProgress:
        if self._live:
            self._bar.start()
        self._save("running")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._live:
            self._bar.stop()
        self._running = 0
        self._save("finished" if kind is None else "stopped")

    def _count_level(self, trial: str, level: int, latest: str) -> None:
        """Count a finished level of a trial once: a resumed trial repeats its first reports."""
        if level < self._reached.get(trial, 0):
            return
        self._reached[trial] = level + 1
        before, self._levels = self._levels, self._levels + 1
        self._times.append(time.monotonic())
        self._total = max(self._total, self._levels)  # bisection may need more
        self._bar.update(self._task, advance=1, total=self._total, description=latest)
        tenth = max(1, self._total // 10)
        if not self._live and before // tenth < self._levels // tenth:
            self._console.print(f"{self._levels}/{self._total} levels  {latest}", soft_wrap=True)

    def report(self, report: Mapping[str, Any]) -> None:
        """Record a worker's report; the last report of an item has no level."""
        if "latest" in report:
            self._count_level(report["of"], report["level"], report["latest"])

    def ended(self, names: Sequence[str], report: Mapping[str, Any]) -> None:
        """Record the last report of an item, by the names of its trials."""
        failed = dict(report.get("failed", []))
        for name in names:
            self.failed.pop(name, None)  # an earlier worker of the item may have died
            self._reached.pop(name, None)
            if error := report.get("store"):  # the item may be retried, as after a worker's death
                self.store_error = self.failed[name] = error
        if not report.get("store"):
            self.failed |= failed
            # A sample is one name, but its failures are those of its trials.
            self._ended += max(0, len(names) - len(failed))

    def died(self, names: Sequence[str], reason: str) -> None:
        """Record that an item's worker has died; the item may be retried."""
        self.failed |= dict.fromkeys(names, reason)

    def running(self, trials: int) -> None:
        """Record the number of running trials; called often, saved every few seconds."""
        self._running = trials
        if time.monotonic() >= self._due:
            self._save("running")

    def _save(self, state: str) -> None:
        self._saved = time.monotonic()
        with suppress(StoreError):  # a full or unreachable store fails the trials, which report it
            save_status(self._store, self._study, self._status(state))
        now = time.monotonic()
        pause = max(SAVE_INTERVAL, SAVE_PAUSE_RATIO * (now - self._saved))
        self._due = now + min(pause, SILENT_AFTER / 2)

    def _status(self, state: str) -> Status:
        failed = len(self.failed)
        while self._times and self._times[0] < self._saved - PACE_SECONDS:
            self._times.popleft()
        minutes = min(PACE_SECONDS, self._saved - self._started) / 60
        pace = len(self._times) / minutes if minutes > 0 else 0.0
        done = self._done_before + self._ended
        waiting = self._trials - done - failed - self._running
        return Status(
            state=state, host=socket.gethostname(), process=os.getpid(), driver=this_process(),
            trials=self._trials, done=done, running=self._running,
            failed=failed, waiting=max(0, waiting), levels_done=self._levels, levels=self._total,
            levels_per_minute=pace, failures=list(self.failed.items()),
        )  # fmt: skip


def _bar(console: Console) -> Progress:
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return Progress(
        BarColumn(24), MofNCompleteColumn(), TextColumn("levels"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
        TextColumn("{task.description}", "dim", markup=False, table_column=rest),
        console=console, expand=True,
    )  # fmt: skip
