"""Points of structures: colours are methods, markers are branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lth_core.analysis.families import Variant
from lth_core.analysis.structures import StructureRow, StructureTable
from lth_core.analysis.summary import Summary
from tracking.figures.drawing.lines import dense_means, grouped
from tracking.figures.drawing.panels import FAINT, Panel, fit_accuracy_scale, side_legend
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

    Budgets and levels of one method and branch are joined by a line.

    Args:
        place: the x of a row; None where it has none.
        colors: the result of `method_colors`.
    """
    shown = [Summary(1, mean, None, None, None) for mean in dense_means(table.cell)]
    for dense in shown:
        panel.axhline(dense.mean, color=DENSE, linewidth=1.4, linestyle=(0, (5, 2)))
    variants = dict.fromkeys(row.variant for row in table.rows)
    for variant in variants:
        rows = [row for row in table.rows if row.variant == variant]
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
        shown += [value for _, value in points]
    return shown


def method_colors(variants: Sequence[Variant]) -> dict[str, str]:
    """Colour of each method."""
    return {variant.method: style["color"] for variant, style in variant_styles(variants).items()}


def finish(
    figure: Figure, first: Panel, tables: Sequence[StructureTable], shown: Sequence[Summary]
) -> None:
    """Set the accuracy axis that the panels share, and add the legend."""
    fit_accuracy_scale(first, shown)
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
