"""What a user sees while a sweep runs: a bar of levels and the latest one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback
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

_on_screen: list[Screen] = []
"""The display of the sweep that runs in this process. Tune pickles callbacks, so none holds it."""


class Screen:
    """A bar that each level moves; on no terminal, a line for every tenth of the way."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done = console, total, 0
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._bar = Progress(
            BarColumn(24), MofNCompleteColumn(), TextColumn("levels"), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
            TextColumn("[dim]{task.description}", table_column=rest),
            console=console, expand=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting Ray", total=total)

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def level(self, latest: str) -> None:
        """One more level is done."""
        before, self._done = self._done, self._done + 1
        self._total = max(self._total, self._done)  # bisection may turn out to need more
        self._bar.update(self._task, advance=1, total=self._total, description=latest)
        tenth = max(1, self._total // 10)
        if not self._console.is_terminal and before // tenth < self._done // tenth:
            self._console.print(f"{self._done}/{self._total} levels  {latest}", soft_wrap=True)


@contextmanager
def screen(console: Console, total: int) -> Iterator[None]:
    """Show progress for the duration."""
    with Screen(console, total) as shown:
        _on_screen.append(shown)
        try:
            yield
        finally:
            _on_screen.remove(shown)


class ShowLevels(Callback):  # type: ignore[misc]
    """Passes what trials report on to the screen."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for shown in _on_screen:
            if latest := result.get("latest"):
                shown.level(latest)
