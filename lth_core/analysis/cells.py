"""Cells of a study: records grouped by axis values, and columns against density in each cell."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, TypeVar

from lth_core.analysis.groups import free_axes, group_by, methods, values_of
from lth_core.analysis.summary import Summary, summarize
from lth_core.columns import Record
from lth_core.jobs.branches import BRANCHES

T = TypeVar("T")

LONGEST_NUMBER = 9
"""Most characters of a number in a cell's label, unless labels would be equal."""


@dataclass(frozen=True, slots=True)
class Point:
    """A branch at one level: mean achieved density, in [0, 1], and the summary of a column."""

    level: int
    density: float
    value: Summary


@dataclass(frozen=True, slots=True)
class Cell:
    """Replicates of one setting: the axis values without the seed, and all their records."""

    values: dict[str, Any]
    records: list[Record]
    shown: dict[str, str]
    """Texts of its axis values by axis; empty in a study without axes. In a study of several
    methods, the method's name, under `method`, replaces the axes that it determines."""
    label: str
    """The shown values: `prune.fraction=0.2, rewind=500it`, or `imp, rewind=500it`."""

    @property
    def branches(self) -> list[str]:
        """Names of the recorded branches: dense and the known ones in their order, then others."""
        known = ["dense", *BRANCHES]
        names = {record["branch"] for record in self.records}
        return [n for n in known if n in names] + sorted(names - set(known))

    @property
    def seeds(self) -> int:
        """Number of recorded replicates."""
        return len({record["seed"] for record in self.records})

    @property
    def fewest_and_most_seeds(self) -> tuple[int, int]:
        """Smallest and largest number of replicates of a level and branch, of one method: a stop
        rule or a loss that is not finite ends some."""
        groups = group_by(self.records, values_of(["method", "branch", "level"]))
        counts = [len({row["seed"] for row in rows}) for rows in groups.values()]
        return min(counts), max(counts)

    @property
    def planned(self) -> int | None:
        """Number of planned replicates; None where no record has it."""
        return max((r["replicates_planned"] for r in self.records if "replicates_planned" in r),
                   default=None)  # fmt: skip

    def is_short(self, replicates: int) -> bool:
        """Whether a number of replicates is lower than planned."""
        return self.planned is not None and replicates < self.planned

    def levels(self, branch: str) -> dict[int, list[Record]]:
        """A branch's records by level, rising, one for each seed."""
        by_level: dict[int, dict[int, Record]] = defaultdict(dict)
        for record in self.records:
            if record["branch"] == branch:
                by_level[record["level"]][record["seed"]] = record
        return {level: list(by_level[level].values()) for level in sorted(by_level)}

    def series(self, branch: str, key: str, scale: float = 1) -> list[Point]:
        """A column, such as `final_test_accuracy`, summarized over replicates level by level."""
        measured = {
            level: [record for record in rows if record.get(key) is not None]
            for level, rows in self.levels(branch).items()
        }
        return [
            Point(
                level,
                fmean(record["density"] for record in rows),
                summarize([scale * record[key] for record in rows]),
            )
            for level, rows in measured.items()
            if rows
        ]

    def of_method(self, method: str) -> Cell:
        """The cell with the records of one method only."""
        return replace(self, records=[r for r in self.records if r["method"] == method])


def cells(records: Sequence[Record], axes: Sequence[str]) -> list[Cell]:
    """The study's cells, methods in the records' order.

    Within a method, numbers are in rising order and names in alphabetical order.

    Args:
        records: as `lth_core.results.record`, with every axis by its dotted name.
        axes: dotted names of the study's axes; those but `seed` make a cell.
    """
    names = [axis for axis in axes if axis != "seed"]
    free = free_axes(records, axes) if len(methods(records)) > 1 else None

    def labelled(text: Callable[[object], str]) -> list[Cell]:
        return [
            Cell({n: rows[0].get(n) for n in names}, rows, shown, _label(shown))
            for rows in group_by(records, values_of(names)).values()
            for shown in [_shown(rows, names, free, text)]
        ]

    grouped = labelled(_short_text)
    if len({cell.label for cell in grouped}) < len(grouped):
        grouped = labelled(value_text)
    order = methods(records)

    def sort_key(cell: Cell) -> tuple[int, list[Any]]:
        first = min(order.index(name) for name in methods(cell.records))
        return first, [_natural_order(value) for value in cell.values.values()]

    return sorted(grouped, key=sort_key)


def open_cells(records: Sequence[Record], axes: Sequence[str]) -> list[Cell]:
    """Cells of the axes that no method determines, each with the records of all methods."""
    return cells(records, ["seed", *free_axes(records, axes)])


def _shown(
    rows: Sequence[Record], names: Sequence[str], free: Sequence[str] | None,
    text: Callable[[object], str],
) -> dict[str, str]:  # fmt: skip
    """Texts of a cell's values, as `Cell.shown`.

    Args:
        free: axes that no method determines, in a study of several methods.
        text: a value as text.
    """
    method: dict[str, str] = {}
    if free is not None and len(methods(rows)) == 1:
        method, names = {"method": rows[0]["method"]}, free
    return method | {name: text(rows[0].get(name)) for name in names}


def _label(shown: dict[str, str]) -> str:
    return ", ".join(v if name == "method" else f"{name}={v}" for name, v in shown.items())


def evenly_spaced(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` of the items, evenly spaced, including the first and the last."""
    count, last = min(limit, len(items)), len(items) - 1
    return [items[round(i * last / max(count - 1, 1))] for i in range(count)]


def value_text(value: object) -> str:
    """A value in the notation of a study file."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _short_text(value: object) -> str:
    """A value as `value_text`, but numbers that a search drew in six digits."""
    text = value_text(value)
    if isinstance(value, float) and len(text) > LONGEST_NUMBER and not value.is_integer():
        return min(value_text(float(f"{value:.6g}")), text, key=len)
    return text


def _natural_order(value: object) -> list[tuple[int, float, str]]:
    """A sort key that puts 500it before 2000it, and 1e-05 before 0.1."""
    if isinstance(value, (int, float)):
        return [(0, float(value), "")]
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", value_text(value), flags=re.ASCII)
    return [(0, float(p), "") if p[0] in "0123456789" else (1, 0.0, p) for p in parts]
