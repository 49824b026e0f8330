"""Points of structures: colours are methods, markers are branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.lines import Line2D

from lth_core.analysis.families import Variant
from lth_core.analysis.groups import group_by
from lth_core.analysis.structures import StructureRow, StructureTable
from lth_core.analysis.summary import Summary
from tracking.figures.drawing.captions import intervals_text, seeds_text, sentences
from tracking.figures.drawing.lines import dense_means, grouped
from tracking.figures.drawing.panels import FAINT, Panel, fit_accuracy_scale, side_legend
from tracking.figures.drawing.study_figure import StudyFigure, record_values
from tracking.figures.drawing.styles import DENSE, STYLES, variant_styles

MOST_INTERVALS = 40
"""Largest number of points in a panel with intervals; more would hide the points."""


def draw_rows(
    panel: Panel,
    table: StructureTable,
    place: Callable[[StructureRow], float | None],
    colors: Mapping[str, str],
) -> list[Summary]:
    """Draw accuracies (%) with their 95% intervals; returns them and the dense runs'.

    Budgets and levels of one method and branch are joined by a line. Accuracies below `floor_of`
    are written at the lower edge, one a method, so that the others are apart.

    Args:
        place: the x of a row; None where it has none.
        colors: the result of `method_colors`.
    """
    shown = [Summary(1, mean, None, None, None) for mean in dense_means(table.cell)]
    for dense in shown:
        panel.axhline(dense.mean, color=DENSE, linewidth=1.4, linestyle=(0, (5, 2)))
    floor = floor_of(table)
    low = [row for row in table.rows if 100 * row.accuracy.mean < floor]
    for rows in group_by(low, lambda row: row.variant.method).values():
        if (x := place(rows[0])) is not None:
            panel.update_datalim([(x, floor)])  # text alone does not widen the x axis
            panel.autoscale_view()
            _write_below(panel, rows, x, colors)
    for variant in dict.fromkeys(row.variant for row in table.rows):
        rows = [row for row in table.rows if row.variant == variant and row not in low]
        points = [(x, _percent(row)) for row in rows if (x := place(row)) is not None]
        if not points:
            continue
        color, marker = colors[variant.method], STYLES[variant.branch][1]
        for x, value in points if len(table.rows) <= MOST_INTERVALS else ():
            if value.low is not None and value.high is not None:
                panel.plot([x, x], [value.low, value.high], color=color, linewidth=1, alpha=0.3)
        panel.plot(
            [x for x, _ in points], [value.mean for _, value in points], color=color,
            marker=marker, markersize=6.5, markeredgecolor="white", markeredgewidth=0.7,
            linewidth=1.2, alpha=0.95,
        )  # fmt: skip
        values = [value for _, value in points]
        record_values(panel, variant.name, [x for x, _ in points], values)
        shown += values
    return shown


def floor_of(table: StructureTable) -> float:
    """Accuracy (%) below which a structure is as good as broken: half of the median."""
    return 50 * median(row.accuracy.mean for row in table.rows)


def _write_below(
    panel: Panel, rows: Sequence[StructureRow], x: float, colors: Mapping[str, str]
) -> None:
    """Write the best of a method's low accuracies (%) at the lower edge."""
    best = 100 * max(row.accuracy.mean for row in rows)
    panel.text(
        x, 0.015, f"{best:.0f}\N{DOWNWARDS ARROW}", transform=panel.get_xaxis_transform(),
        color=colors[rows[0].variant.method], ha="center", fontsize=8.5,
    )  # fmt: skip


def method_colors(variants: Sequence[Variant]) -> dict[str, str]:
    """Colour of each method."""
    return {variant.method: style["color"] for variant, style in variant_styles(variants).items()}


def finish(
    figure: StudyFigure, first: Panel, tables: Sequence[StructureTable], shown: Sequence[Summary]
) -> None:
    """Set the accuracy axis that the panels share, add the legend, and end the caption."""
    fit_accuracy_scale(first, shown)
    bars = intervals_text(shown, first, "Bars")
    low = [
        row for table in tables for row in table.rows if 100 * row.accuracy.mean < floor_of(table)
    ]
    figure.caption = sentences(
        f"{figure.caption}, {seeds_text([table.cell for table in tables])}. Dashed: dense.",
        bars * any(len(table.rows) <= MOST_INTERVALS for table in tables),
        "Accuracies far below the others are numbers at the lower edge." * bool(low),
    )
    variants = list(dict.fromkeys(row.variant for table in tables for row in table.rows))
    colors = method_colors(variants)
    methods = {
        Variant(v.method, "ticket", v.when): _patch(colors[v.method], "s", 8.0) for v in variants
    }
    branches = dict.fromkeys(v.branch for v in variants)
    dense = Line2D([], [], color=DENSE, linewidth=1.4, linestyle=(0, (5, 2)))
    side_legend(figure, {
        "": {"dense": dense},
        **grouped(methods),
        "Trained as": {name: _patch(FAINT, STYLES[name][1], 6.5) for name in branches},
    })  # fmt: skip


def _patch(color: str, marker: str, size: float) -> Any:
    return Line2D([], [], color=color, marker=marker, markersize=size, linestyle="")


def _percent(row: StructureRow) -> Summary:
    value = row.accuracy
    low, high = (None if end is None else 100 * end for end in (value.low, value.high))
    return Summary(value.n, 100 * value.mean, None, low, high)
