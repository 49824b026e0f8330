"""Early-stop step of each branch against density, a panel a cell."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from lth_core.analysis.cells import cells
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, seeds_text, sentences
from tracking.figures.drawing.lines import (
    DENSITY_TEXT,
    REMAINING,
    draw_branches,
    name_lines,
)
from tracking.figures.drawing.panels import bounds_of, limits, panels
from tracking.figures.drawing.study_figure import StudyFigure


def early_stop(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Mean early-stop step of each branch against density (%), with 95% intervals.

    None without validation examples, without a pruned network, and where all steps are equal.
    """
    steps = {record["early_stop_step"] for record in records} - {None}
    if len(steps) < 2 or not any(r["level"] and r["density"] for r in records):
        return None
    figure, drawn = panels(
        cells(records, axes), REMAINING, "Early-stop step", x_text=DENSITY_TEXT, unit=" steps"
    )
    handles, points = draw_branches(drawn, "early_stop_step")
    values, panel = [point.value for point in points], drawn[0][0]
    means = [value.mean for value in values]
    low, high = limits(means, bounds_of(values))
    # Steps are whole, and so are the ticks.
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    low, high = min(low, min(means) - 2), max(high, max(means) + 2)
    panel.set_ylim(max(low, -0.03 * high), high)  # no step is below 0
    name_lines(figure, drawn, handles)
    figure.caption = sentences(
        "Step with the lowest validation loss, of those with the final density, "
        f"{seeds_text([cell for _, cell in drawn])}; lower is faster.",
        intervals_text(values, panel),
    )
    return figure
