"""Accuracy of each branch against density, a panel a cell."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from lth_core.analysis.cells import cells
from lth_core.columns import Record
from tracking.figures.drawing.lines import ACCURACY, REMAINING, CurvesOf, draw_branches
from tracking.figures.drawing.panels import fit_accuracy_scale, panels


def accuracy(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean final test accuracy (%) of each branch against density (%), with 95% intervals."""
    figure, drawn = panels(cells(records, axes), REMAINING, ACCURACY)
    values = draw_branches(figure, drawn, "final_test_accuracy", scale=100)
    if values:
        fit_accuracy_scale(drawn[0][0], values)
    return figure
