"""Density of each layer of the tickets against density."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from statistics import fmean
from typing import Any

from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lth_core.analysis.cells import Cell, cells
from lth_core.analysis.rewinds import varying_axes
from lth_core.columns import Record
from tracking.figures.drawing.lines import REMAINING, CurvesOf
from tracking.figures.drawing.panels import (
    FAINT,
    SHADES,
    Panel,
    color_bar,
    dense_and_tickets,
    density_scale,
    legend,
    panels,
    percent_ticks,
    plain,
)

MOST_NAMED_LAYERS = 10


def layer_density(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean density (%) of each layer of the tickets against density (%), both logarithmic."""
    axes = varying_axes(records, axes, ["density", "layer_density"])
    figure, drawn = panels(cells(records, axes), REMAINING, "Weights remaining in the layer (%)")
    names = _layers(records)
    depth = Normalize(0, len(names) - 1)
    handles: dict[str, Any] = {}
    for panel, cell in drawn:
        panel.axline((100, 100), (1, 1), color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        for i, name in enumerate(names):
            # Lines of layers of equal density coincide: the earlier ones show as a rim.
            width = 4.5 - 3 * i / len(names)
            handles[name] = _draw_layer(panel, cell, name, SHADES(depth(i)), width)
    if drawn:
        shares = [s for r in records for s in (r["density"], *r["layer_density"].values()) if s]
        first, low = drawn[0][0], 100 * min(shares)
        density_scale(first, low)
        first.set(yscale="log", ylim=first.get_xlim()[::-1])
        percent_ticks(first.yaxis, min(low, 50))
    if len(names) <= MOST_NAMED_LAYERS:
        legend(figure, handles)
    elif drawn:
        bar = color_bar(figure, depth, [panel for panel, _ in drawn], "Layer")
        bar.set_ticks([0, len(names) - 1], labels=[plain(names[0]), plain(names[-1])])
        bar.ax.invert_yaxis()
    return figure


def _draw_layer(panel: Panel, cell: Cell, name: str, color: Any, width: float) -> Any:
    levels = dense_and_tickets(cell)
    x = [_percent([row["density"] for row in rows]) for rows in levels]
    y = [_percent([row["layer_density"].get(name, 0) for row in rows]) for rows in levels]
    (line,) = panel.plot(x, y, color=color, linewidth=width, marker=".", markersize=4)
    return line


def _percent(shares: Sequence[float]) -> float:
    """Mean in percent; NaN, which is not drawn, instead of 0, which a logarithmic axis lacks."""
    return 100 * fmean(shares) if any(shares) else nan


def _layers(records: Sequence[Record]) -> list[str]:
    """Names of all layers, in the order of the deepest network."""
    networks = [list(record["layer_density"]) for record in records]
    deepest: list[str] = max(networks, key=len, default=[])
    return deepest + sorted({name for names in networks for name in names} - set(deepest))
