"""Studies of the rewind point: to which step of the dense run's training must tickets go back?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from lth_core.analysis.cells import Cell, cells, free_axes, shown
from lth_core.analysis.groups import group_by, values_of
from lth_core.analysis.verdict import Summary
from lth_core.columns import Record

REWIND = "rewind"
"""The axis."""
STABLE_BELOW = 0.02
"""Barrier (error, as a fraction) below which two runs count as one outcome: Frankle et al. 2020."""
MOST_LEVELS = 6
"""Levels of a cell in figures and in the table of predictors."""


@dataclass(frozen=True, slots=True)
class RewindPoint:
    """A step to which tickets are rewound, and what was recorded there."""

    name: str
    """As the study spells it: `2%`, `500it`."""
    step: int
    """Counted from initialization."""
    cell: Cell
    """Records of this rewind point alone."""


def settled_methods(records: Sequence[Record], axes: Sequence[str]) -> list[Record]:
    """The records, `imp-rewind` and `imp` as one method where the study is about rewinding.

    A method's name says whether it rewinds beyond initialization. Where every method goes through
    the same rewind points, that is an axis, and no way of its own to find sparse networks. A study
    that holds `imp-rewind` at one point against methods that do not rewind keeps its names.

    Args:
        records, axes: as in `tracking.report.html.headlines`.
    """
    if REWIND not in axes:
        return list(records)
    points: dict[str, set[str]] = defaultdict(set)
    for record in records:
        points[_base(record)].add(repr(record.get(REWIND)))
    crossed = list(points.values())
    if not crossed or len(crossed[0]) < 2 or any(found != crossed[0] for found in crossed):
        return list(records)
    bases = {record["method"]: _base(record) for record in records}
    return [_renamed(record, bases) for record in records]


def _base(record: Record) -> str:
    """The method's name without what `jobs.methods.method` adds to it at a late rewind point."""
    name: str = record["method"]
    return name.replace("-rewind", "", 1) if record["when"] == "after" else name


def _renamed(record: Record, bases: dict[str, str]) -> Record:
    """With the base names of its method and of those its mask was compared with."""
    changed: dict[str, Any] = {"method": bases[record["method"]]}
    for key in ("overlap_methods", "overlap_methods_chance"):
        if others := record.get(key):
            changed[key] = {bases.get(name, name): share for name, share in others.items()}
    return {**record, **changed}


def rewind_cells(records: Sequence[Record], axes: Sequence[str]) -> list[Cell]:
    """The cells of all axes but the rewind point; none where no method has several such points.

    Args:
        records: of `settled_methods`.
    """
    known = [record for record in records if record.get("rewind_step") is not None]
    if REWIND not in free_axes(known, axes):
        return []
    return cells(known, [axis for axis in axes if axis != REWIND])


def rewind_points(cell: Cell) -> list[RewindPoint]:
    """A cell's rewind points, early ones first."""
    found: dict[int, list[Record]] = defaultdict(list)
    for record in cell.records:
        found[record["rewind_step"]].append(record)
    return [
        RewindPoint(shown(rows[0].get(REWIND)), step, replace(cell, records=rows))
        for step, rows in sorted(found.items())
    ]


def along(
    points: Sequence[RewindPoint], branch: str, level: int, key: str, scale: float = 1
) -> dict[str, Summary]:
    """A number of a branch at one level, summarized over seeds, by the names of rewind points."""
    return {
        point.name: at.value
        for point in points
        for at in point.cell.series(branch, key, scale)
        if at.level == level
    }


def level_density(cell: Cell, level: int) -> float:
    """Mean density of a level's tickets over seeds and rewind points, in [0, 1]."""
    tickets = [r for r in cell.records if (r["branch"], r["level"]) == ("ticket", level)]
    return fmean(record["density"] for record in tickets)


def axes_that_matter(
    records: Sequence[Record], axes: Sequence[str], keys: Sequence[str]
) -> list[str]:
    """The axes without the rewind point where some numbers of the records are the same at each.

    What is known of the dense run, and masks found in one shot, hang on no rewind point: a panel
    for each would show the same many times over.
    """
    others = [axis for axis in axes if axis != REWIND]
    if len(others) == len(axes):
        return others
    places = group_by(records, values_of(["seed", "method", "branch", "level", *others]))
    alike = all(len(group_by(rows, values_of(keys))) == 1 for rows in places.values())
    return others if alike else list(axes)
