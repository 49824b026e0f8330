"""Barriers of the dense run and of tickets against the rewind point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lth_core.analysis.rewinds import STABLE_BELOW, rewind_points, rewind_series
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, seeds_text, sentences
from tracking.figures.drawing.panels import INK, legend, panels
from tracking.figures.drawing.rewind_axis import (
    POINT,
    POINT_TEXT,
    cells_with,
    draw_along,
    level_styles,
    limits_above_zero,
    rewind_axis,
)
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.figures.drawing.styles import DENSE
from tracking.text import points_text

BARRIER = "Rise of test error between two runs (points)"


def stability(
    records: Sequence[Record],
    axes: Sequence[str],
    stable_below: float = STABLE_BELOW,
) -> StudyFigure | None:
    """Mean test barrier (points) of dense runs and of tickets against the rewind point.

    None where the study has only one rewind point or no twins.

    Args:
        stable_below: barrier, as a fraction, at which a line is drawn.
    """
    cells = cells_with(records, axes, "twin", "test_barrier")
    if not cells:
        return None
    figure, drawn = panels(cells, POINT, BARRIER, x_text=POINT_TEXT, unit=" points")
    positions, styles = rewind_axis(drawn, cells), level_styles(cells)
    threshold = 100 * stable_below
    handles, shown = dict[str, Any](), list[Summary]()
    for panel, cell in drawn:
        line = panel.axhline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for level, (name, *style) in {0: ("dense", DENSE, "X"), **styles}.items():
            if values := rewind_series(rewind_points(cell), "twin", level, "test_barrier", 100):
                handles[name] = draw_along(panel, name, positions, values, *style)
                shown += values.values()
    drawn[0][0].set_ylim(*limits_above_zero(shown, [0, threshold]))
    legend(figure, {**handles, f"stable below {points_text(stable_below)}": line})
    figure.caption = sentences(
        "Highest rise of the test error on the straight line between the final weights of two "
        "copies, trained from one state under different data orders, "
        f"{seeds_text([cell for _, cell in drawn])}. "
        f"Stable: the interval, of fewer than three seeds the mean, lies below "
        f"{points_text(stable_below)}.",
        intervals_text(shown, drawn[0][0]),
    )
    return figure
