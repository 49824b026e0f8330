"""Progress of a sweep: a bar on the terminal, and an entry in the store for `lth status`."""

from __future__ import annotations

import os
import socket
import sys
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
)
from rich.table import Column

from lth_core.errors import StoreError
from lth_core.store import Store
from lth_core.store.locks import this_process
from sweeps.plan.estimate import duration
from sweeps.store.status import SILENT_AFTER, Run, Status, save_status
from sweeps.studies.schema import Study

SAVE_INTERVAL = 5.0
"""Least seconds between two saves of the status."""
SAVE_PAUSE_RATIO = 10
"""Least ratio of the time between two saves to the duration of a save, which delays the sweep. With
a slow store, a status is still saved before readers count the sweep as killed."""
PACE_SECONDS = 600.0
"""Seconds over which the pace is averaged."""
LINE_INTERVAL = 60.0
"""Seconds after which a log gets another line, though no tenth of the levels has ended."""
LEAST_WORK = 0.2
"""Work in average levels before the time left is told; a dense run is a third of one or more."""
STARTED, FIRST = "starting workers", "first trainings"
"""Descriptions of the bar before the first level has ended."""


class SweepProgress:
    """Counts of the trials and levels of a sweep, shown and stored as they change.

    Args:
        trials: number of trials of the study, finished ones included.
        done: number of trials that were finished before the sweep.
        levels: number of levels to run.
        level_seconds: expected seconds of each level of the trials, by trial; in proportion to
            them, levels count towards the time left. Without them all levels count alike.
        live: draw a bar on a terminal, from a thread; else print lines: for the first level, for
            each tenth, and after a minute without.
        run: the command that runs the trials.
        verbose: print a line for each level.
    """

    def __init__(
        self, study: Study, store: Store, console: Console, trials: int, done: int, levels: int,
        level_seconds: Mapping[str, Sequence[float]] | None = None, *, live: bool = True,
        run: Run = "sweep", verbose: bool = False,
    ) -> None:  # fmt: skip
        self._study, self._store, self._console = study, store, console
        self._run, self._verbose = run, verbose
        self._trials, self._done_before, self._total = trials, done, levels
        self._ended, self._levels, self._running = 0, 0, 0
        self._reached: dict[str, int] = {}
        """Number of levels of each running trial."""
        self._level_seconds = level_seconds or {}
        self._work = sum(map(sum, self._level_seconds.values())) or float(levels)
        """Expected seconds of all levels; without an expectation, their number."""
        self._worked = 0.0
        """Expected seconds of the finished levels."""
        self._busy = 0.0
        """Seconds that the finished levels took, summed over the trials."""
        self._since: dict[str, float] = {}
        """Time at which each running trial ended its latest level."""
        self._latest = deque[tuple[float, int, float]]()
        """Times at which the latest levels ended, with the levels and the work done by then."""
        self.failed: dict[str, str] = {}
        """Reasons of failures, by trial."""
        self._started = self._saved = self._due = self._printed = time.monotonic()
        self._free = self._started
        """Time at which a worker was free last: at the first training, or when an item ended."""
        self._first: float | None = None
        """Time at which the first training began."""
        self._end: float | None = None
        """Time at which the run will end, at its pace when the latest level ended."""
        self._live = live and console.is_terminal
        self._bar = _bar(console)
        self._task = self._bar.add_task(STARTED, total=levels, left="")

    def __enter__(self) -> SweepProgress:
        if self._live:
            self._bar.start()
        self._save("running")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._live:
            self._bar.stop()
        self._running = 0
        if kind is None:  # a bisection may have needed fewer levels and trials than were expected
            self._total = self._total if self.failed else self._levels
            self._trials = self._done_before + self._ended + len(self.failed)
        self._save("finished" if kind is None else "stopped")

    @property
    def seconds(self) -> float:
        """Seconds since the first training began."""
        return time.monotonic() - self._first if self._first else 0.0

    def expect(self, levels: int) -> None:
        """Correct the number of levels to run, where it was an estimate without `level_seconds`."""
        self._total, self._work = levels, float(levels)
        self._bar.update(self._task, total=levels)

    def stopping(self, saves: bool = True) -> None:
        """Tell the user that the run ends after a signal.

        Args:
            saves: whether running trainings store checkpoints now; a cluster's workers do not.
        """
        self._bar.update(self._task, description="stopping")
        what = "running trainings store their checkpoints" if saves else (
            "running trainings end, and resume from their last checkpoints")  # fmt: skip
        try:
            self._console.print(f"stopping: {what}; Ctrl-C again ends at once")
        # The terminal is closed, or Ctrl-C has ended the program behind a pipe, whereupon rich
        # exits. What is left to do is done without output.
        except (OSError, SystemExit):
            self._console.quiet = True

    def _count_level(self, trial: str, level: int, latest: str) -> None:
        """Count a finished level of a trial once: a resumed trial repeats its first reports."""
        if level < self._reached.get(trial, 0):
            return
        self._reached[trial] = level + 1
        before, self._levels = self._levels, self._levels + 1
        self._total = max(self._total, self._levels)  # bisection may need more
        now = time.monotonic()
        self._busy += now - self._since.get(trial, self._free)
        self._since[trial] = now
        self._worked += self._level_seconds[trial][level] if self._level_seconds else 1.0
        self._latest.append((now, self._levels, self._worked))
        left, (_, pace) = max(0.0, self._work - self._worked - self._underway), self._pace()
        is_last = self._levels == self._total
        # Levels that the store had, which a resumed run begins with, tell no pace.
        is_known = self._worked >= LEAST_WORK * self._work / self._total
        self._end = now + left / pace * 60 if pace and is_known and not is_last else None
        self._bar.update(self._task, advance=1, total=self._total, description=latest)
        tenth = max(1, self._total // 10)
        is_due = before // tenth < self._levels // tenth or not before
        is_due |= time.monotonic() - self._printed >= LINE_INTERVAL
        if self._verbose or (not self._live and is_due):
            self._print_line(latest)

    def _print_line(self, latest: str) -> None:
        self._printed = time.monotonic()
        counts = f"{self._levels}/{self._total} levels"
        text = ", ".join(filter(None, (counts, self._left())))
        self._console.print(f"{text}  {latest}", soft_wrap=True)

    def _left(self) -> str:
        left = self._minutes_left()
        return "" if left is None else f"about {duration(60 * left)} left"

    def _minutes_left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic()) / 60

    @property
    def _underway(self) -> float:
        """Expected seconds of the work done in levels that have not ended.

        A running trial that has ended no level is taken to have begun when another ended, or with
        the sweep, and its level to be an average one.
        """
        if not self._busy:
            return 0.0
        now, rate = time.monotonic(), self._worked / self._busy
        average = self._worked / self._levels
        done = [
            min(rate * (now - since), self._next_seconds(trial, average))
            for trial, since in self._since.items()
        ]
        unseen = max(0, self._running - len(self._since))
        return sum(done) + unseen * min(rate * (now - self._free), average)

    def _next_seconds(self, trial: str, average: float) -> float:
        """Expected seconds of a trial's next level; 0 after its last one."""
        if not self._level_seconds:
            return average
        left = self._level_seconds[trial][self._reached[trial] :]
        return left[0] if left else 0.0

    def _pace(self) -> tuple[float, float]:
        """Levels and work a minute, over `PACE_SECONDS` at most, or over all where none ended."""
        now, latest = time.monotonic(), self._latest
        begun, levels, worked = self._first or self._started, 0, -self._underway
        # The level before the span tells when the first one in it began.
        while len(latest) > 1 and latest[1][0] < now - PACE_SECONDS:
            latest.popleft()
        if len(latest) > 1 and latest[0][0] < now - PACE_SECONDS:
            begun, levels, worked = latest[0]
        minutes = (now - begun) / 60
        if minutes <= 0:
            return 0.0, 0.0
        return (self._levels - levels) / minutes, (self._worked - worked) / minutes

    def report(self, report: Mapping[str, Any]) -> None:
        """Record a worker's report; the last report of an item has no level."""
        if "latest" in report:
            self._count_level(report["of"], report["level"], report["latest"])

    def ended(self, names: Sequence[str], report: Mapping[str, Any]) -> None:
        """Record the last report of an item, by the names of its trials."""
        self._free = time.monotonic()
        failed = dict(report.get("failed", []))
        for name in names:
            self.failed.pop(name, None)  # an earlier worker of the item may have died
            self._since.pop(name, None)
            if error := report.get("store"):  # the item may be retried, and repeats its levels
                self.failed[name] = error
            else:
                self._reached.pop(name, None)
        if not report.get("store"):
            self.failed |= failed
            self._ended += len(names) - len(failed)

    def died(self, names: Sequence[str], reason: str) -> None:
        """Record that an item's worker has died; the item may be retried."""
        self.failed |= dict.fromkeys(names, reason)
        for name in names:
            self._since.pop(name, None)

    def running(self, trials: int) -> None:
        """Record the number of running trials; called often, saved every few seconds."""
        self._running = trials
        if trials and self._first is None:
            self._first = self._free = time.monotonic()
            self._bar.update(self._task, description=FIRST)
            if not self._live:
                self._console.print(f"{FIRST} ...")
        self._bar.update(self._task, left=self._left())
        if time.monotonic() >= self._due:
            self._save("running")

    def _save(self, state: str) -> None:
        self._saved = time.monotonic()
        with suppress(StoreError):  # a full or unreachable store fails the trials, which report it
            save_status(self._store, self._study.name, self._status(state), self._run)
        now = time.monotonic()
        pause = max(SAVE_INTERVAL, SAVE_PAUSE_RATIO * (now - self._saved))
        self._due = now + min(pause, SILENT_AFTER / 2)

    def _status(self, state: str) -> Status:
        done = self._done_before + self._ended
        # A trial whose worker has died counts as failed until it is retried; then it is running.
        failed = max(0, min(len(self.failed), self._trials - done - self._running))
        waiting = self._trials - done - failed - self._running
        return Status(
            state=state, host=socket.gethostname(), process=os.getpid(), driver=this_process(),
            trials=self._trials, done=done, running=self._running,
            failed=failed, waiting=max(0, waiting), levels_done=self._levels, levels=self._total,
            levels_per_minute=self._pace()[0], minutes_left=self._minutes_left(),
            failures=list(self.failed.items()), command=self._study.command(self._run),
        )  # fmt: skip


def _bar(console: Console) -> Progress:
    """A bar on one line, which is removed at its end."""
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return Progress(
        BarColumn(16), MofNCompleteColumn(), TextColumn("levels"), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.description}", "dim", markup=False, table_column=rest),
        console=console, expand=True, transient=True, redirect_stderr=sys.stderr.isatty(),
    )  # fmt: skip
