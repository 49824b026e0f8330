"""Results by rewind point and density as text: tables for the terminal and the HTML report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lth_core.analysis.cells import Cell, evenly_spaced
from lth_core.analysis.groups import group_by
from lth_core.analysis.prediction import (
    FEWEST_FOR_INTERVAL,
    PREDICTORS,
    Correlation,
    predictor_correlations,
)
from lth_core.analysis.rewinds import (
    MOST_LEVELS,
    STABLE_BELOW,
    RewindPoint,
    Stability,
    level_density,
    rewind_cells,
    rewind_points,
    stability_of,
)
from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict import Verdict, verdicts_by_cell, words_by_level
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from tracking.report.verdict_table import TOO_FEW
from tracking.text import MISSING, MOST_COLUMNS, accuracy_text, density_text


@dataclass(frozen=True, slots=True)
class BarrierText:
    """Barrier between two copies of a run, as text."""

    points: str
    """Rise of test error in points: mean over seeds, and half of the 95% interval."""
    word: Stability
    """Stability by its interval; by the mean with fewer than three seeds."""


@dataclass(frozen=True, slots=True)
class RewindMark:
    """The ticket of a rewind point at a density."""

    accuracy: str
    """Mean over seeds in percent, and half of the 95% interval."""
    verdict: str
    """Value of `Verdict.verdict`; empty without a dense run to compare with."""
    collapsed: bool
    """Whether a layer has no weights left, in any replicate."""
    short: bool
    """Whether there are fewer replicates than planned."""
    barrier: BarrierText | None


@dataclass(frozen=True, slots=True)
class RewindRow:
    """A rewind point."""

    point: str
    """The point as it is spelled in the study."""
    step: int
    dense: BarrierText | None
    marks: list[RewindMark | None]
    """One mark a density; None where there is no ticket yet."""


@dataclass(frozen=True, slots=True)
class RewindTable:
    """Results of rewinding to each point, in one cell of the other axes."""

    label: str
    """The cell's label; empty where there is only one cell."""
    dense: str
    """Accuracy of the dense run; empty where it is missing."""
    densities: list[str]
    """Densities of the columns, falling."""
    left_out: int
    """Number of levels that have no column."""
    rows: list[RewindRow]
    """Rewind points, early ones first."""
    matching: str
    """Earliest matching rewind point at each density, in one line."""
    stable: str
    """Earliest stable rewind point, also for the dense run; empty without barriers."""
    barriers: bool
    """Whether barriers were measured."""


@dataclass(frozen=True, slots=True)
class PredictorTable:
    """Correlations of predictors with ticket accuracy, in one cell of the other axes."""

    label: str
    densities: list[str]
    windows: list[str]
    """Number of rewind points up to the best one, as a range over seeds; one a density."""
    rows: dict[str, list[tuple[str, str] | None]]
    """Rank correlations up to the best rewind point and over all, by predictor and density."""
    strongest: str
    """Sentence on the predictor of the strongest correlation up to the best point that is shown to
    differ from 0, beside the step's own."""


Judged = Callable[[Sequence[Record]], list[Verdict]]
"""The result of `verdicts_by_cell`."""


def rewind_tables(
    records: Sequence[Record],
    axes: Sequence[str],
    rule: VerdictRule,
    stable_below: float = STABLE_BELOW,
    most: int = MOST_COLUMNS,
) -> list[RewindTable]:
    """One table a cell of the other axes; none where a study has only one rewind point.

    Args:
        records: the output of `merge_rewound_methods`.
        axes, rule: as in `tracking.report.html.write_report`.
        stable_below: barrier, as a fraction, below which training is stable.
        most: largest number of densities; where there are more, evenly spaced ones are shown.
    """
    judged = verdicts_by_cell(records, axes, rule)
    return [_table(cell, judged, stable_below, most) for cell in rewind_cells(records, axes)]


def predictor_tables(records: Sequence[Record], axes: Sequence[str]) -> list[PredictorTable]:
    """One table a cell that has predictors; arguments as in `rewind_tables`."""
    return [table for cell in rewind_cells(records, axes) if (table := _predictors(cell))]


def _table(cell: Cell, judged: Judged, stable_below: float, most: int) -> RewindTable:
    points, levels = rewind_points(cell), list(cell.levels("ticket"))
    shown = evenly_spaced(levels, most)
    rows = [_row(point, shown, judged, stable_below) for point in points]
    densities = [_level_text(cell, level) for level in shown]
    dense = cell.series("dense", "final_test_accuracy")
    barriers = [
        (
            name,
            {
                row.point: barrier.word == "stable"
                for row in rows
                if (barrier := _barrier_of(row, i))
            },
        )
        for i, name in enumerate(["dense", *densities])
    ]
    measured = any(column for _, column in barriers)
    return RewindTable(
        label=cell.label,
        dense=accuracy_text(dense[0].value) if dense else "",
        densities=densities,
        left_out=len(levels) - len(shown),
        rows=rows,
        matching=_earliest_matching(rows, densities),
        stable=f"Earliest stable rewind point seen: {_first_points(barriers)}" if measured else "",
        barriers=measured,
    )


def _level_text(cell: Cell, level: int) -> str:
    """Density of a level: `50%`, or `about 50%` where it is a mean of rewind points that differ:
    budgets of FLOPs leave each structure a density of its own."""
    tickets = [row for row in cell.records if (row["branch"], row["level"]) == ("ticket", level)]
    by_point = group_by(tickets, lambda row: row["rewind_step"])
    texts = {density_text(fmean(row["density"] for row in rows)) for rows in by_point.values()}
    return "about " * (len(texts) > 1) + density_text(level_density(cell, level))


def _row(
    point: RewindPoint, levels: Sequence[int], judged: Judged, stable_below: float
) -> RewindRow:
    words = words_by_level(judged(point.cell.records))
    accuracies = {p.level: p.value for p in point.cell.series("ticket", "final_test_accuracy")}
    barriers = {
        p.level: BarrierText(accuracy_text(p.value), stability_of(p.value, stable_below))
        for p in point.cell.series("twin", "test_barrier")
    }
    tickets = point.cell.levels("ticket")
    marks = [
        RewindMark(
            accuracy=accuracy_text(accuracies[level]),
            verdict=words.get(level, ""),
            collapsed=any(record["collapsed_layers"] for record in tickets[level]),
            short=point.cell.is_short(accuracies[level].n),
            barrier=barriers.get(level),
        )
        if level in accuracies
        else None
        for level in levels
    ]
    return RewindRow(point.name, point.step, barriers.get(0), marks)


def _barrier_of(row: RewindRow, column: int) -> BarrierText | None:
    """Barrier in a column: the dense run's first, then the marks'."""
    if column == 0:
        return row.dense
    mark = row.marks[column - 1]
    return mark.barrier if mark else None


def _earliest_matching(rows: Sequence[RewindRow], densities: Sequence[str]) -> str:
    """`... seen: 5% at 10% density, none at 3%`: points that were not tried may match earlier."""
    words = [
        (density, {row.point: mark.verdict for row in rows if (mark := row.marks[i])})
        for i, density in enumerate(densities)
    ]
    every = [word for _, column in words for word in column.values()]
    if not every:
        return "No ticket yet"
    if all(word == TOO_FEW for word in every):
        return f"Earliest matching rewind point: {TOO_FEW}"
    hits = [
        (density, {point: word in ("matching", "winning") for point, word in column.items()})
        for density, column in words
    ]
    return f"Earliest matching rewind point seen: {_first_points(hits)}"


def _first_points(hits: Sequence[tuple[str, Mapping[str, bool]]]) -> str:
    """The first rewind point with a hit, by column; columns without rewind points are left out."""
    parts, word = [], " density"
    for name, column in hits:
        point = next((point for point, hit in column.items() if hit), "none")
        if name == "dense":
            parts.append(f"{point} for dense")
        elif column:
            parts.append(f"{point} at {name}{word}")
            word = ""
    return ", ".join(parts)


def _predictors(cell: Cell) -> PredictorTable | None:
    correlations = predictor_correlations(cell)
    if not correlations:
        return None
    levels = evenly_spaced(list(cell.levels("ticket")), MOST_LEVELS)
    by_name = {(each.predictor.name, each.level): each for each in correlations}
    windows = {each.level: each.windows for each in correlations}
    return PredictorTable(
        label=cell.label,
        densities=[_level_text(cell, level) for level in levels],
        windows=[_range_text(*windows[level]) if level in windows else "" for level in levels],
        rows={
            name: [
                (_correlation_text(each.to_best), _correlation_text(each.over_all))
                if (each := by_name.get((name, level)))
                else None
                for level in levels
            ]
            for name in dict.fromkeys(each.predictor.name for each in correlations)
        },
        strongest=_strongest(cell, correlations),
    )


def _strongest(cell: Cell, correlations: Sequence[Correlation]) -> str:
    step = {each.level: each.to_best for each in correlations if each.predictor == PREDICTORS[0]}
    shown = [
        (abs(value.mean), each, value)
        for each in correlations
        if each.predictor != PREDICTORS[0] and (value := each.to_best)
        if value.low is not None and value.high is not None and value.low * value.high > 0
    ]
    if not shown:
        none = "No predictor has a correlation up to the best point whose interval excludes 0"
        if any(each.to_best and each.to_best.low is not None for each in correlations):
            return none
        return f"{none}: intervals take {FEWEST_FOR_INTERVAL} points, and seeds that differ"
    _, best, value = max(shown, key=lambda found: found[0])
    return (
        f"Strongest up to the best point, with an interval that excludes 0: {best.predictor.name}, "
        f"{_correlation_text(value)} at {_level_text(cell, best.level)} density; the step itself "
        f"{_correlation_text(step.get(best.level))}"
    )


def _range_text(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}\N{EN DASH}{high}"


def _correlation_text(value: Summary | None) -> str:
    """Mean correlation, and half of the 95% interval."""
    if value is None:
        return MISSING
    mean = f"{value.mean:+.2f}".replace("-", "\N{MINUS SIGN}")
    if value.high is None:
        return mean
    half = value.high - value.mean
    # Such an interval is as wide as the range of all correlations.
    return f"{mean}±{half:.2f}" if half < 1 else f"{mean}±>1"
