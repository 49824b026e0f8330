"""Ways to a sparse network, all on one axis: accuracy against density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lth_core.analysis.cells import Cell, Point, Record, methods, open_cells
from lth_core.analysis.families import Way, families, ways
from lth_core.analysis.rewinds import rewind_cells
from tracking.figures.drawing import ACCURACY, DENSE, REMAINING, CurvesOf, draw_line
from tracking.figures.panels import (
    Panel,
    accuracy_scale,
    density_scale,
    limits,
    panels,
    side_legend,
    stretch,
    unstretch,
)
from tracking.figures.styles import way_styles

MOST_BANDS = 6
"""Ways in a panel beyond which intervals would hide the lines."""


def by_method(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure | None:
    """Mean final test accuracy (%) of each way against density (%).

    None for a single way; nor are retrainings of one method looked at here where the rewind point
    is what the study is about.
    """
    found = ways(records)
    if len(found) < 2 or (len(methods(records)) < 2 and rewind_cells(records, axes)):
        return None
    figure, drawn = panels(open_cells(records, axes), REMAINING, ACCURACY)
    dense, reached = None, list[float]()
    for panel, cell in drawn:
        for mean in dense_means(cell):
            dense = panel.axhline(mean, color=DENSE, linewidth=1.4, linestyle=(0, (5, 2)))
            reached.append(mean)
    handles, points = draw_ways(drawn, found, "final_test_accuracy", scale=100)
    if points:
        reached += [point.value.mean for point in points]
        accuracy_scale(drawn[0][0], *unstretch(limits(list(map(stretch, reached)))))
    side_legend(figure, {"": {"dense": dense} if dense else {}, **grouped(handles)})
    return figure


def dense_means(cell: Cell) -> list[float]:
    """Mean final test accuracies (%) of the cell's dense runs, which methods mostly share."""
    named = methods(cell.records)
    series = [cell.found_by(name).series("dense", "final_test_accuracy", 100) for name in named]
    return sorted({round(points[0].value.mean, 9) for points in series if points})


def draw_ways(
    drawn: Sequence[tuple[Panel, Cell]], found: Sequence[Way], key: str, scale: float = 1
) -> tuple[dict[Way, Any], list[Point]]:
    """Draw a number of each way in each panel; returns a line of each, and all that is drawn."""
    styles, handles, shown = way_styles(found), dict[Way, Any](), list[Point]()
    for panel, cell in drawn:
        for way in found:
            if points := way.series(cell, key, scale):
                line = draw_line(panel, points, band=len(found) <= MOST_BANDS, **styles[way])
                handles.setdefault(way, line)
                shown += points
    if shown:
        density_scale(drawn[0][0], 100 * min(point.density for point in shown))
    return {way: handles[way] for way in found if way in handles}, shown


def grouped(handles: Mapping[Way, Any]) -> dict[str, dict[str, Any]]:
    """Lines by the names of family and way, for the legend."""
    return {
        family: {way.name: handles[way] for way in group}
        for family, group in families(list(handles)).items()
    }
