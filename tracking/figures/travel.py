"""Distance that the dense run moves the weights that a ticket keeps, and those that it prunes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import LogLocator, NullLocator

from lth_core.analysis.cells import cells, open_cells
from lth_core.analysis.families import variants
from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import varying_axes
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, seeds_text, sentences
from tracking.figures.drawing.lines import (
    DENSITY_TEXT,
    REMAINING,
    draw_line,
    draw_variants,
    grouped,
    name_lines,
)
from tracking.figures.drawing.panels import (
    FAINT,
    bounds_of,
    density_scale,
    limits,
    panels,
    side_legend,
)
from tracking.figures.drawing.study_figure import StudyFigure

DENSE_TRAVEL = "Mean distance from initialization"
RATIO = "Distance moved, kept over pruned (log scale)"
MOST_LINEAR = 1000
"""Largest ratio of two distances on a linear axis."""
SIDES = {
    "travel_inside": ("kept by the ticket", "#0072b2", "o"),
    "travel_outside": ("pruned", "#d55e00", "s"),
}


def travel(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Mean distance (absolute, of weights) of kept and of pruned weights against density (%).

    With several methods their ratio, one line a method. None where the records lack the distances.
    """
    tickets = [
        {**record, "travel_ratio": record["travel_inside"] / record["travel_outside"]}
        for record in records
        if record["branch"] == "ticket"
        and record.get("travel_inside") is not None
        and record["density"] > 0
        and record.get("travel_outside")  # None where nothing is pruned; 0 where nothing is trained
    ]
    if not tickets:
        return None
    return _ratios(tickets, axes) if len(methods(records)) > 1 else _sides(tickets, axes)


def _sides(tickets: Sequence[Record], axes: Sequence[str]) -> StudyFigure:
    axes = varying_axes(tickets, axes, ["density", *SIDES])
    figure, drawn = panels(cells(tickets, axes), REMAINING, DENSE_TRAVEL, x_text=DENSITY_TEXT)
    handles: dict[str, Any] = {}
    shown = list[Summary]()
    for panel, cell in drawn:
        for key, (name, color, marker) in SIDES.items():
            points = [point for point in cell.series("ticket", key) if point.density > 0]
            handles[name] = draw_line(panel, name, points, color, marker)
            shown += [point.value for point in points]
    density_scale(drawn[0][0], 100 * min(ticket["density"] for ticket in tickets))
    means = [value.mean for value in shown]
    if max(means) > MOST_LINEAR * min(means) > 0:  # a training that diverges hides the others
        drawn[0][0].set_yscale("log")
        drawn[0][0].set_ylim(min(means) / 2, 2 * max(means))
    else:
        drawn[0][0].set_ylim(0, limits([0.0, *means], bounds_of(shown))[1])
    name_lines(figure, drawn, handles)
    figure.caption = sentences(
        "Distance of a weight between initialization and the end of the dense run, for the weights "
        f"that the ticket keeps and those that it prunes, {seeds_text([c for _, c in drawn])}.",
        intervals_text(shown, drawn[0][0]),
    )
    return figure


def _ratios(tickets: Sequence[Record], axes: Sequence[str]) -> StudyFigure:
    figure, drawn = panels(open_cells(tickets, axes), REMAINING, RATIO, x_text=DENSITY_TEXT)
    for panel, _ in drawn:
        panel.axhline(1, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    handles, _ = draw_variants(drawn, variants(tickets), "travel_ratio")
    drawn[0][0].set_yscale("log")
    axis = drawn[0][0].yaxis
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())
    side_legend(figure, grouped(handles))
    figure.caption = (
        "Distance of the kept weights between initialization and the end of the dense run, over "
        f"that of the pruned ones, {seeds_text([cell for _, cell in drawn])}. Above the dashed "
        "line the kept weights move further."
    )
    return figure
