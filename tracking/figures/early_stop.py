"""Early-stop step of each branch against density, a panel a cell."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lth_core.analysis.cells import cells
from lth_core.columns import Record
from tracking.figures.drawing.lines import REMAINING, CurvesOf, draw_branches
from tracking.figures.drawing.panels import bounds_of, limits, panels


def early_stop(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure | None:
    """Mean early-stop step of each branch against density (%), with 95% intervals; None without
    validation examples."""
    if records and all(record["early_stop_step"] is None for record in records):
        return None
    figure, drawn = panels(cells(records, axes), REMAINING, "Early-stop step")
    values = draw_branches(figure, drawn, "early_stop_step")
    if values:
        means = [value.mean for value in values]
        low, high = limits(means, bounds_of(values))
        # Steps are whole, and so are the ticks, also where all steps are equal.
        drawn[0][0].yaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = min(low, min(means) - 2), max(high, max(means) + 2)
        drawn[0][0].set_ylim(max(low, -0.03 * high), high)  # no step is below 0
    return figure
