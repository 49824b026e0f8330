"""Where a sweep stands: a bar for who looks on, an entry in the store for `lth status`."""

from __future__ import annotations

import os
import re
import socket
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper
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
from lth_core.redaction import without_secrets
from lth_core.store import Store
from lth_core.store.locks import myself
from sweeps.run.signals import is_told_to_end
from sweeps.run.status import SILENT, Status, save_status
from sweeps.run.worker import piece_name

EVERY = 5.0
"""Seconds at least between two entries in the store."""
SAVING = 10
"""Saving takes one part of the time in so many, for Tune's loop waits for it. A slow store is
written to all the same before readers take the sweep for a silent one."""
RATED = 600.0
"""Seconds over which the pace is taken."""

_under_way: list[Standing] = []
"""The sweep that runs in this process. Tune pickles callbacks, so none holds it."""


class Standing:
    """What came of a sweep's pieces so far.

    Args:
        trials: of the study, those that were done before too.
        done: trials that were done before.
        levels: that are to come.
    """

    def __init__(
        self, study: str, store: Store, console: Console, trials: int, done: int, levels: int
    ) -> None:
        self._study, self._store, self._console = study, store, console
        self._trials, self._before, self._total = trials, done, levels
        self._ended, self._levels, self._running = 0, 0, 0
        self._reached: dict[str, int] = {}
        """Levels of each trial that is under way."""
        self._times = deque[float]()
        """When the latest levels were done."""
        self.failed: dict[str, str] = {}
        """Why, by trial or sample."""
        self.store_error = ""
        """What the store has said last when it failed."""
        self._started = self._saved = self._due = time.monotonic()
        self._bar = _bar(console)
        self._task = self._bar.add_task("starting", total=levels)

    def __enter__(self) -> Standing:
        _under_way.append(self)
        if self._console.is_terminal:
            self._bar.start()
        self._save("running")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        _under_way.remove(self)
        if self._console.is_terminal:
            self._bar.stop()
        self._running = 0
        self._save("finished" if kind is None else "stopped")

    def level(self, trial: str, level: int, latest: str) -> None:
        """A trial has come to a level; one that was interrupted tells its first ones again."""
        if level < self._reached.get(trial, 0):
            return
        self._reached[trial] = level + 1
        before, self._levels = self._levels, self._levels + 1
        self._times.append(time.monotonic())
        self._total = max(self._total, self._levels)  # bisection may turn out to need more
        self._bar.update(self._task, advance=1, total=self._total, description=latest)
        tenth = max(1, self._total // 10)
        if not self._console.is_terminal and before // tenth < self._levels // tenth:
            self._console.print(f"{self._levels}/{self._total} levels  {latest}", soft_wrap=True)

    def ended(self, name: str, said: dict[str, Any]) -> None:
        """A piece of work has come to its end."""
        self.failed.pop(name, None)  # a worker of it died before
        self._reached.pop(name, None)
        if why := said.get("store"):  # it may go out again, as where a worker died
            self.store_error = self.failed[name] = why
        else:
            self.failed |= dict(said.get("failed", []))
            self._ended += not said.get("failed")

    def died(self, name: str, reason: str) -> None:
        """The worker of a piece has died; it may go out again."""
        self.failed[name] = reason

    def beat(self, running: int) -> None:
        """Tune's loop has come round, with so many at work."""
        self._running = running
        if time.monotonic() >= self._due:
            self._save("running")

    def _save(self, state: str) -> None:
        self._saved = time.monotonic()
        with suppress(StoreError):  # it is full, or away for a moment: trials will say so
            save_status(self._store, self._study, self._status(state))
        now = time.monotonic()
        self._due = now + min(max(EVERY, SAVING * (now - self._saved)), SILENT / 2)

    def _status(self, state: str) -> Status:
        failed = len(self.failed)
        while self._times and self._times[0] < self._saved - RATED:
            self._times.popleft()
        over = min(RATED, self._saved - self._started) / 60
        pace = len(self._times) / over if over > 0 else 0.0
        waiting = self._trials - self._before - self._ended - failed - self._running
        return Status(
            state=state, host=socket.gethostname(), process=os.getpid(), driver=myself(),
            trials=self._trials, done=self._before + self._ended, running=self._running,
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


def _why(trial: Any) -> str:
    """What ended a trial's worker. Ray's own `get_error` looks where this is brought only later."""
    try:
        said = Path(trial.error_file).read_text()
    except (OSError, TypeError):  # it has no folder
        return "its worker died"
    *_, last = said.split("Failure # ")
    if raised := re.findall(r"^[\w.]*(?:Error|Exception): .*", last, re.M):
        return without_secrets(raised[-1])
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes|$)", last, re.M)
    return f"its worker died: {detail[1]}" if detail else "its worker died"


class UntilTold(Stopper):  # type: ignore[misc]
    """Ends Tune's loop where this process is told to end."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return is_told_to_end()


class Tell(Callback):  # type: ignore[misc]
    """Passes on what Tune hears of its trials."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for standing in _under_way:
            if "latest" in result:
                standing.level(result["of"], result["level"], result["latest"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for standing in _under_way:
            standing.ended(piece_name(trial.config), trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for standing in _under_way if not is_told_to_end() else ():
            standing.died(piece_name(trial.config), _why(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for standing in _under_way:
            standing.beat(sum(trial.status == "RUNNING" for trial in trials))
