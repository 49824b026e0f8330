"""Accuracy of methods by density as text: a table for the terminal and the HTML report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lth_core.analysis.cells import Cell, Point, open_cells
from lth_core.analysis.families import Variant, by_family, variant_verdicts, variants
from lth_core.analysis.groups import methods
from lth_core.analysis.paired import shown_worse
from lth_core.analysis.verdict import words_by_level
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from tracking.text import MOST_COLUMNS, accuracy_text, density_text

COLUMN_FACTOR = 1.06
"""Densities within this factor share a column: rounding by layer differs between methods."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A method at a density."""

    accuracy: str
    """Mean over seeds in percent, and half of the 95% interval."""
    best: bool
    """Whether the mean is the highest of its column, of two or more."""
    worse: bool
    """Whether it is shown to be worse than another of its column."""
    verdict: str
    """Value of `Verdict.verdict`; empty at levels without a dense run to compare with."""
    collapsed: bool
    """Whether a layer has no weights left, in any replicate."""
    short: bool
    """Whether there are fewer replicates than planned."""


@dataclass(frozen=True, slots=True)
class MethodTable:
    """Accuracies of the methods, in one cell of the axes that no method determines."""

    label: str
    """The cell's label; empty where there is only one cell."""
    dense: list[str]
    """Accuracies of the dense runs; most methods share one run."""
    densities: list[str]
    """Densities of the columns, falling."""
    groups: dict[str, dict[str, list[Mark | None]]]
    """Marks of the columns by family and method; None where the method has no record there."""
    confidence: str
    """Probability, in percent, that the truly best of a column is not marked as worse."""


def method_tables(
    records: Sequence[Record],
    axes: Sequence[str],
    rule: VerdictRule,
    most: int = MOST_COLUMNS,
) -> list[MethodTable]:
    """One table a cell of the axes that no method determines; none for a single method.

    Args:
        records, axes, rule: as in `tracking.report.html.write_report`.
        most: largest number of columns; `columns` chooses them.
    """
    if len(methods(records)) < 2:
        return []
    compared = variants(records)
    return [_table(cell, compared, rule, most) for cell in open_cells(records, axes)]


def columns(lines: Sequence[Sequence[float]], most: int) -> list[list[float]]:
    """At most ``most`` columns in falling order, each a list of about equal densities.

    Where there are more, columns of fewer than half of the lines are dropped. The rest is thinned
    evenly, and both ends remain.

    Args:
        lines: the densities of each line.
    """
    every: list[list[float]] = []
    for density in sorted((d for line in lines for d in line), reverse=True):
        if every and every[-1][0] <= density * COLUMN_FACTOR:
            every[-1].append(density)
        else:
            every.append([density])
    if len(every) <= most:
        return every
    fullest = max(map(len, every))
    common = [column for column in every if 2 * len(column) >= fullest]
    last, most = len(common) - 1, min(most, len(common))
    return [common[round(i * last / max(most - 1, 1))] for i in range(most)]


def _table(cell: Cell, compared: Sequence[Variant], rule: VerdictRule, most: int) -> MethodTable:
    series = {variant: variant.series(cell, "final_test_accuracy") for variant in compared}
    series = {variant: points for variant, points in series.items() if points}
    shown = columns([[point.density for point in points] for points in series.values()], most)
    points_of = {
        variant: [_nearest(points, column) for column in shown]
        for variant, points in series.items()
    }
    by_column = [
        {variant: point for variant, points in points_of.items() if (point := points[i])}
        for i in range(len(shown))
    ]
    best = [_highest(column) for column in by_column]
    worse = [shown_worse(_by_seed(cell, column), rule.significant) for column in by_column]
    judged = variant_verdicts(cell, list(points_of), rule)
    rows = {
        variant: _row(cell, variant, points, best, worse, words_by_level(judged[variant]))
        for variant, points in points_of.items()
    }
    return MethodTable(
        label=cell.label,
        dense=dense_accuracies(cell),
        densities=[density_text(fmean(column)) for column in shown],
        groups={
            family: {variant.name: rows[variant] for variant in group}
            for family, group in by_family(list(series)).items()
        },
        confidence=f"{100 * rule.confidence:.4g}%",
    )


def _nearest(points: Iterable[Point], column: Sequence[float]) -> Point | None:
    """The point in a column, the nearest to its mean where there are several."""
    inside = [point for point in points if column[-1] <= point.density <= column[0]]
    return min(inside, key=lambda point: abs(point.density - fmean(column)), default=None)


def _highest(column: Mapping[Variant, Point]) -> set[Variant]:
    """The variants with the highest mean, of two or more."""
    highest = max((point.value.mean for point in column.values()), default=None)
    found = {variant for variant, point in column.items() if point.value.mean == highest}
    return found if len(column) > 1 else set()


def _by_seed(cell: Cell, column: Mapping[Variant, Point]) -> dict[Variant, dict[int, float]]:
    """Final test accuracies of a column's points, by variant and seed."""
    return {
        variant: {
            record["seed"]: record["final_test_accuracy"]
            for record in cell.of_method(variant.method).levels(variant.branch)[point.level]
        }
        for variant, point in column.items()
    }


def _row(
    cell: Cell,
    variant: Variant,
    points: Sequence[Point | None],
    best: Sequence[set[Variant]],
    worse: Sequence[set[Variant]],
    words: Mapping[int, str],
) -> list[Mark | None]:
    """Marks of a variant.

    Args:
        best, worse: variants of each column.
        words: the verdicts by level.
    """
    method_cell = cell.of_method(variant.method)
    levels = method_cell.levels(variant.branch)
    return [
        Mark(
            accuracy=accuracy_text(point.value),
            best=variant in highest,
            worse=variant in lower,
            verdict=words.get(point.level, ""),
            collapsed=any(record["collapsed_layers"] for record in levels[point.level]),
            short=method_cell.is_short(point.value.n),
        )
        if point
        else None
        for point, highest, lower in zip(points, best, worse, strict=True)
    ]


def dense_accuracies(cell: Cell) -> list[str]:
    """Distinct accuracies of the methods' dense runs."""
    names = methods(cell.records)
    series = [cell.of_method(name).series("dense", "final_test_accuracy") for name in names]
    return list(dict.fromkeys(accuracy_text(points[0].value) for points in series if points))
