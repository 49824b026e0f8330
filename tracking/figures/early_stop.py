"""Early-stop step of each branch against density, a panel a cell."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lth_core.analysis.cells import cells
from lth_core.columns import Record
from tracking.figures.drawing.lines import REMAINING, CurvesOf, draw_branches
from tracking.figures.drawing.panels import bounds_of, limits, panels


def early_stop(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean early-stop step of each branch against density (%), with 95% intervals."""
    figure, drawn = panels(cells(records, axes), REMAINING, "Early-stop step")
    values = draw_branches(figure, drawn, "early_stop_step")
    if values:
        low, high = limits([value.mean for value in values], bounds_of(values))
        drawn[0][0].set_ylim(max(low, -0.03 * high), high)  # no step is below 0
    return figure
