"""Studies of the rewind point: cells, and columns along the rewind points of a cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from lth_core.analysis.cells import Cell, cells, value_text
from lth_core.analysis.groups import distinct, free_axes, group_by, key_of, values_of
from lth_core.analysis.paired import PairedTest, paired_tests
from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict_rule import FEWEST
from lth_core.columns import Record

REWIND, RESTART = "rewind", "restart_schedule"
"""Names of axes."""
STABLE_BELOW = 0.02
"""Barrier (error, as a fraction) below which two runs count as one outcome: Frankle et al. 2020."""
Stability = Literal["stable", "unstable", "undecided"]
MOST_LEVELS = 6
"""Levels of a cell in figures and in the table of predictors."""


@dataclass(frozen=True, slots=True)
class RewindPoint:
    """A step to which tickets are rewound, and its records."""

    name: str
    """The axis value in the study's notation: `2%`, `500it`."""
    step: int
    """Counted from initialization."""
    cell: Cell
    """Records of this rewind point alone."""


def merge_rewound_methods(records: Sequence[Record], axes: Sequence[str]) -> list[Record]:
    """The records, with `imp-rewind` renamed `imp` where the study is about rewinding.

    A method's name contains `-rewind` where it rewinds beyond initialization. Where every method
    has the same rewind points, these are an axis, not methods. A study that compares `imp-rewind`
    at one point with methods that do not rewind keeps its names.

    Args:
        records, axes: as in `tracking.report.html.write_report`.
    """
    if REWIND not in axes:
        return list(records)
    points = [
        distinct(record.get(REWIND) for record in rows).keys()
        for rows in group_by(records, _base_name).values()
    ]
    if not points or len(points[0]) < 2 or any(keys != points[0] for keys in points):
        return list(records)
    base_names = {record["method"]: _base_name(record) for record in records}
    return [_renamed(record, base_names) for record in records]


def _base_name(record: Record) -> str:
    """The method's name without the `-rewind` that `jobs.methods.method` adds."""
    name: str = record["method"]
    return name.replace("-rewind", "", 1) if record["when"] == "after" else name


def _renamed(record: Record, base_names: dict[str, str]) -> Record:
    """The record with base names for its method and for the methods of its overlaps."""
    changed: dict[str, Any] = {"method": base_names[record["method"]]}
    for key in ("overlap_methods", "overlap_methods_chance"):
        if overlaps := record.get(key):
            changed[key] = {base_names.get(name, name): share for name, share in overlaps.items()}
    return {**record, **changed}


def rewind_cells(records: Sequence[Record], axes: Sequence[str]) -> list[Cell]:
    """The cells of all axes but the rewind point; none where no method has several such points.

    Args:
        records: the output of `merge_rewound_methods`.
    """
    known = [record for record in records if record.get("rewind_step") is not None]
    if REWIND not in free_axes(known, axes):
        return []
    return _with_step_0(cells(known, [axis for axis in axes if axis != REWIND]))


def _with_step_0(found: Sequence[Cell]) -> list[Cell]:
    """The cells, each with step 0 where one that differs in `restart_schedule` alone has it: at
    step 0 a restarted schedule is no other one, so that a study has that trial once."""

    def others(cell: Cell) -> list[Any]:
        return [value for axis, value in cell.values.items() if axis != RESTART]

    alike = group_by(found, others)
    shared = {
        key: [row for cell in group for row in cell.records if row["rewind_step"] == 0]
        for key, group in alike.items()
    }
    return [
        cell
        if any(row["rewind_step"] == 0 for row in cell.records)
        else replace(cell, records=[*shared[key_of(others(cell))], *cell.records])
        for cell in found
    ]


def rewind_points(cell: Cell) -> list[RewindPoint]:
    """A cell's rewind points, in order of step."""
    by_step: dict[int, list[Record]] = defaultdict(list)
    for record in cell.records:
        by_step[record["rewind_step"]].append(record)
    return [
        RewindPoint(value_text(rows[0].get(REWIND)), step, replace(cell, records=rows))
        for step, rows in sorted(by_step.items())
    ]


def stability_of(barrier: Summary, stable_below: float) -> Stability:
    """Stability by the barrier's interval: all below the threshold, all above it, or undecided.

    By the mean with fewer than three seeds, whose interval is wider than most barriers.

    >>> stability_of(Summary(n=3, mean=0.014, std=0.006, low=-0.002, high=0.031), 0.02)
    'undecided'
    """
    low = high = barrier.mean
    if barrier.n >= FEWEST and barrier.low is not None and barrier.high is not None:
        low, high = barrier.low, barrier.high
    if high < stable_below:
        return "stable"
    return "unstable" if low >= stable_below else "undecided"


def ticket_gain(early: RewindPoint, late: RewindPoint) -> PairedTest | None:
    """Test on the final test accuracy of late-rewound tickets less that of early-rewound ones.

    A seed's difference is the mean over the levels that both have. None without a common seed.
    """
    differences = defaultdict[int, list[float]](list)
    before = _ticket_accuracies(early)
    for key, accuracy in _ticket_accuracies(late).items():
        if key in before:
            differences[key[0]].append(accuracy - before[key])
    by_seed = {seed: fmean(values) for seed, values in differences.items()}
    return paired_tests([by_seed])[0] if by_seed else None


def _ticket_accuracies(point: RewindPoint) -> dict[tuple[int, int], float]:
    """Final test accuracies of tickets in [0, 1], by seed and level."""
    return {
        (record["seed"], record["level"]): record["final_test_accuracy"]
        for record in point.cell.records
        if record["branch"] == "ticket"
    }


def rewind_series(
    points: Sequence[RewindPoint], branch: str, level: int, key: str, scale: float = 1
) -> dict[str, Summary]:
    """A column of a branch at one level, summarized over seeds, by names of rewind points."""
    return {
        point.name: measured.value
        for point in points
        for measured in point.cell.series(branch, key, scale)
        if measured.level == level
    }


def level_density(cell: Cell, level: int) -> float:
    """Mean density of a level's tickets over seeds and rewind points, in [0, 1]."""
    tickets = [r for r in cell.records if (r["branch"], r["level"]) == ("ticket", level)]
    return fmean(record["density"] for record in tickets)


def varying_axes(records: Sequence[Record], axes: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The axes, without the rewind point where the given columns are equal at all rewind points.

    Numbers of the dense run and of one-shot masks do not depend on the rewind point, so panels for
    several rewind points would be equal.
    """
    others = [axis for axis in axes if axis != REWIND]
    if len(others) == len(axes):
        return others
    groups = group_by(records, values_of(["seed", "branch", "level", *others]))
    equal = all(len(group_by(rows, values_of(keys))) == 1 for rows in groups.values())
    return others if equal else list(axes)
