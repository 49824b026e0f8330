"""Branches against density: accuracy and early-stop step, a panel a cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from lth_core.analysis.cells import Cell, Point, Record, cells
from lth_core.analysis.verdict import Summary
from tracking.figures.drawing import ACCURACY, DENSE, REMAINING, CurvesOf, draw_dense, draw_line
from tracking.figures.panels import (
    Panel,
    accuracy_scale,
    density_scale,
    legend,
    limits,
    panels,
    stretch,
    unstretch,
)

STYLES = {
    "dense": (DENSE, ""),
    "ticket": ("#0072b2", "o"),
    "reinit": ("#d55e00", "s"),
    "random_mask": ("#009e73", "^"),
    "shuffled_mask": ("#cc79a7", "v"),
    "inverted_mask": ("#a6761d", "<"),
    "constant_sign": ("#b2182b", ">"),
    "reshuffled": ("#7a9a01", "p"),
    "finetune": ("#e69f00", "D"),
    "lr_rewind": ("#56b4e9", "P"),
    "trained": ("#8c6bb1", "X"),
    "twin": ("#999933", "8"),
}
"""Colour (from Okabe and Ito's palette, safe for the colour-blind, on) and marker, by branch."""
NOT_SHOWN = ("twin",)
"""A second run of the ticket: what it is for is the barrier between the two, not its accuracy."""
LINE_WIDTHS = {"lr_rewind": 3}
"""Late rewind points leave it what the ticket is, which lies on it: it shows as a rim."""
OTHER_STYLES = (("#e7298a", "h"), ("#17becf", "*"), ("#1b1b1b", "d"), ("#66c2a5", "H"))


def accuracy(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean final test accuracy (%) of each branch against density (%), with 95% intervals."""
    figure, drawn = panels(cells(records, axes), REMAINING, ACCURACY)
    values = _draw_branches(figure, drawn, "final_test_accuracy", scale=100)
    if values:
        means = [stretch(v.mean) for v in values]
        bounds = [(stretch(v.low), stretch(v.high)) for v in values if v.low is not None]
        accuracy_scale(drawn[0][0], *unstretch(limits(means, bounds)))
    return figure


def early_stop(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean early-stop step of each branch against density (%), with 95% intervals."""
    figure, drawn = panels(cells(records, axes), REMAINING, "Early-stop step")
    values = _draw_branches(figure, drawn, "early_stop_step")
    if values:
        bounds = [(v.low, v.high) for v in values if v.low is not None and v.high is not None]
        low, high = limits([v.mean for v in values], bounds)
        drawn[0][0].set_ylim(max(low, -0.03 * high), high)  # no step is below 0
    return figure


def _draw_branches(
    figure: Figure, drawn: Sequence[tuple[Panel, Cell]], key: str, scale: float = 1
) -> list[Summary]:
    """Draw each branch's mean and band in each panel; returns all that is drawn, scaled."""
    styles = branch_styles([cell for _, cell in drawn])
    handles: dict[str, Any] = {}
    shown: list[Point] = []
    for panel, cell in drawn:
        for branch in reversed(shown_branches(cell)):
            points = [p for p in cell.series(branch, key, scale) if p.density > 0]
            if branch == "dense":
                handles[branch] = draw_dense(panel, points)
            else:
                handles[branch] = draw_line(
                    panel, points, *styles[branch], linewidth=LINE_WIDTHS.get(branch, 1.6)
                )
            shown += points
    if shown:
        density_scale(drawn[0][0], 100 * min(point.density for point in shown))
    legend(figure, {name: handles[name] for name in styles if name in handles})
    return [point.value for point in shown]


def shown_branches(cell: Cell) -> list[str]:
    """Names of the branches there are, without those that are not looked at for themselves."""
    return [branch for branch in cell.branches if branch not in NOT_SHOWN]


def branch_styles(found: Sequence[Cell]) -> dict[str, tuple[str, str]]:
    """Colours and markers by branch, those of unknown branches at the end."""
    others = sorted({name for cell in found for name in cell.branches} - set(STYLES))
    return {**STYLES, **dict(zip(others, OTHER_STYLES * len(others), strict=False))}
