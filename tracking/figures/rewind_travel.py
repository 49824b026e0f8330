"""Distance travelled by tickets against the rewind point, one line a density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lth_core.analysis.rewinds import rewind_points, rewind_series
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, seeds_text, sentences
from tracking.figures.drawing.panels import legend, panels
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

TICKET_TRAVEL = "Mean distance that kept weights travel"


def rewind_travel(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Mean distance (absolute, of weights) of tickets from start to end, against the rewind point.

    None where the study has only one rewind point, or the records lack the distance.
    """
    cells = cells_with(records, axes, "ticket", "travel")
    if not cells:
        return None
    figure, drawn = panels(cells, POINT, TICKET_TRAVEL, x_text=POINT_TEXT)
    positions, styles = rewind_axis(drawn, cells), level_styles(cells)
    handles, shown = dict[str, Any](), list[Summary]()
    for panel, cell in drawn:
        for level, (name, *style) in styles.items():
            if values := rewind_series(rewind_points(cell), "ticket", level, "travel"):
                handles[name] = draw_along(panel, name, positions, values, *style)
                shown += values.values()
    drawn[0][0].set_ylim(*limits_above_zero(shown, [0]))
    legend(figure, handles)
    figure.caption = sentences(
        f"Distance of the kept weights between the start and the end of the tickets' training, "
        f"{seeds_text([cell for _, cell in drawn])}.",
        intervals_text(shown, drawn[0][0]),
    )
    return figure
