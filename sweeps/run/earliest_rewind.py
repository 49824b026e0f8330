"""Earliest matching rewind points, as `lth rewind` finds them, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from lth_core.analysis.cells import value_text
from sweeps.plan.estimate import Estimate
from sweeps.studies.axes import Fields
from tracking.text import MISSING, density_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Largest amount of work of a bisection, before it starts.

    cells, points: numbers of cells, and of their rewind points in all.
    looks: number of points to train at, in all cells.
    trials: number of trials, one for each look and seed.
    levels: number of levels of these trials, the dense run's included.
    trainings: number of trainings that the store lacks.
    time: estimated time of these trainings.
    """

    cells: int
    points: int
    looks: int
    trials: int
    levels: int
    trainings: int
    time: Estimate

    def sentence(self) -> str:
        """`at most 4 looks at 8 rewind points: 27 trainings, about 2 min, 2 at a time`."""
        cells = f" of {self.cells} cells" if self.cells > 1 else ""
        looks = "1 look" if self.looks == 1 else f"{self.looks} looks"
        time = self.time.sentence().removeprefix("time: ")
        return (
            f"at most {looks} at {self.points} rewind points{cells}: {self.trainings} trainings, "
            f"{time}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EarliestRewind:
    """The earliest matching rewind point of a cell at one level; all points are in steps.

    monotone: whether the responses were monotone; else the whole grid was probed.
    finished: False where a probe failed.
    earliest: the first probed point that is shown to match, or None.
    below: the last probed point before it, which is not shown to match, or None.
    p_matching: adjusted p, by the verdict, of the ticket at `earliest` being less than the margin
        below dense.
    p_matching_below: the same at `below`.
    probes, points: number of probed points, and of all points.
    trainings: number of tickets that the probes need, stored ones included.
    trainings_grid: number of tickets that all points need.
    """

    cell: Fields
    level: int
    density: float
    earliest: int | None
    below: int | None
    monotone: bool
    finished: bool
    p_matching: float | None
    p_matching_below: float | None
    steps: int
    probes: int
    points: int
    trainings: int
    trainings_grid: int

    def to_json(self) -> dict[str, Any]:
        """Flat JSON object, with the cell's own fields."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields.pop("cell"), **fields}

    @property
    def text(self) -> str:
        """The point in words: `120it (6.0%)`."""
        if self.earliest is None:
            return "none"
        return f"{self.earliest}it ({self.earliest / self.steps:.1%})"

    @property
    def outcome(self) -> str:
        """Outcome of the search: bisected, unfinished, or not monotone, with the grid probed."""
        if not self.finished:
            return "unfinished"
        return "bisected" if self.monotone else "not monotone: grid"


def rewind_table(found: Sequence[EarliestRewind]) -> Table:
    """Table of the earliest rewind points for a terminal."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    cells = any(rewind.cell for rewind in found)
    if cells:
        table.add_column("cell", overflow="fold")
    table.add_column("density", justify="right")
    table.add_column("matches from", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("not shown at", justify="right")
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("tickets", justify="right", no_wrap=True)
    table.add_column("")
    for rewind in found:
        label = ", ".join(f"{name}={value_text(value)}" for name, value in rewind.cell.items())
        table.add_row(
            *([Text(label)] if cells else []),
            density_text(rewind.density),
            Text(rewind.text, style="bold" if rewind.earliest is not None else "yellow"),
            _p_text(rewind.p_matching),
            MISSING if rewind.below is None else f"{rewind.below}it",
            _p_text(rewind.p_matching_below),
            f"{rewind.trainings} of {rewind.trainings_grid}",
            Text(rewind.outcome, style="" if rewind.outcome == "bisected" else "yellow"),
        )
    return table


def _p_text(p: float | None) -> str:
    if p is None:
        return MISSING
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"
