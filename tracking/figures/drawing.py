"""What several figures share: words on their axes, and a line with its band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from typing import Any

from lth_core.analysis.cells import Point
from lth_core.analysis.verdict import Summary
from lth_core.train.training import Curves
from tracking.figures.panels import Panel

CurvesOf = Callable[[str], Curves | None]
"""From a record's `training_digest` to its learning curves, None where they are not at hand."""

ACCURACY = "Test accuracy (%, log scale of error)"
REMAINING = "Weights remaining (%, log scale)"
DENSE = "#4d4d4d"


def draw_line(
    panel: Panel, points: list[Point], color: Any, marker: str, *, band: bool = True, **style: Any
) -> Any:
    """Means against density (%), with their 95% intervals as a band."""
    x, values = [100 * point.density for point in points], [point.value for point in points]
    return draw_values(panel, x, values, color, marker, band=band, **style)


def draw_values(
    panel: Panel,
    x: Sequence[float],
    values: Sequence[Summary],
    color: Any,
    marker: str,
    *,
    band: bool = True,
    **style: Any,
) -> Any:
    """Means against anything, with their 95% intervals as a band."""
    if band:
        lows = [nan if value.low is None else value.low for value in values]
        highs = [nan if value.high is None else value.high for value in values]
        panel.fill_between(x, lows, highs, color=color, alpha=0.14, linewidth=0)
    look = {"markersize": 4.5, "linewidth": 1.6, **style}
    (line,) = panel.plot(x, [value.mean for value in values], color=color, marker=marker, **look)
    return line


def draw_dense(panel: Panel, points: list[Point], color: Any = DENSE, marker: str = "") -> Any:
    """The dense run's mean across the panel, with its 95% interval."""
    value = points[0].value  # level 0 is all there is of it
    if value.low is not None and value.high is not None:
        panel.axhspan(value.low, value.high, color=color, alpha=0.12, linewidth=0)
    return panel.axhline(value.mean, color=color, linewidth=1.6, linestyle=(0, (5, 2)))
