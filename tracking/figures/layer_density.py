"""Density of each layer of the tickets against density."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from statistics import fmean
from typing import Any

from matplotlib.colors import Normalize

from lth_core.analysis.cells import Cell, cells
from lth_core.analysis.rewinds import varying_axes
from lth_core.analysis.summary import summarize
from lth_core.columns import Record
from tracking.figures.drawing.captions import seeds_text
from tracking.figures.drawing.lines import DENSITY_TEXT, REMAINING
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
from tracking.figures.drawing.study_figure import StudyFigure, record_values
from tracking.text import count, density_text

MOST_NAMED_LAYERS = 10
EQUAL, ROUNDING = 0.05, 0.005
"""Differences of a layer's density that tell nothing: a share of the density, and one of 1, which
whole numbers of weights need."""


def layer_density(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Mean density (%) of each layer of the tickets against density (%), both logarithmic.

    None where all layers have the network's density, as under the scope `layerwise`.
    """
    axes = varying_axes(records, axes, ["density", "layer_density"])
    tickets = [record for record in records if record["branch"] == "ticket"]
    if all(map(_equal_layers, tickets)):
        return None
    figure, drawn = panels(
        cells(records, axes), REMAINING, "Weights remaining in the layer (%)",
        x_text=DENSITY_TEXT, unit="%",
    )  # fmt: skip
    names = _layers(records)
    depth = Normalize(0, len(names) - 1)
    handles: dict[str, Any] = {}
    for panel, cell in drawn:
        panel.axline((100, 100), (1, 1), color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        for i, name in enumerate(names):
            # Lines of layers of equal density coincide: the earlier ones show as a rim.
            width = 4.5 - 3 * i / len(names)
            handles[name] = _draw_layer(panel, cell, name, SHADES(depth(i)), width)
    shares = [s for r in records for s in (r["density"], *r["layer_density"].values()) if s]
    first, low = drawn[0][0], 100 * min(shares)
    density_scale(first, low)
    first.set(yscale="log", ylim=first.get_xlim()[::-1])
    percent_ticks(first.yaxis, min(low, 50))
    if len(names) <= MOST_NAMED_LAYERS:
        legend(figure, handles)
    else:
        bar = color_bar(figure, depth, [panel for panel, _ in drawn], "Layer")
        bar.set_ticks([0, len(names) - 1], labels=[plain(names[0]), plain(names[-1])])
        bar.ax.invert_yaxis()
    figure.caption = _caption(tickets, names, [cell for _, cell in drawn])
    return figure


def _equal_layers(ticket: Record) -> bool:
    """Whether no layer's density differs from the network's by more than `EQUAL` or `ROUNDING`."""
    density, layers = ticket["density"], ticket["layer_density"].values()
    return all(abs(layer - density) <= max(EQUAL * density, ROUNDING) for layer in layers)


def _caption(tickets: Sequence[Record], names: Sequence[str], drawn: Sequence[Cell]) -> str:
    """Sentences with the layers that keep most and least at the lowest density."""
    last = max(ticket["level"] for ticket in tickets)
    rows = [ticket["layer_density"] for ticket in tickets if ticket["level"] == last]
    shares = {name: [row[name] for row in rows if name in row] for name in names}
    means = {name: fmean(found) for name, found in shares.items() if found}
    most, least = max(means, key=lambda n: means[n]), min(means, key=lambda n: means[n])
    return (
        f"Density of {count(len(names), 'layer')} of the tickets, {seeds_text(drawn)}. At level "
        f"{last} {most} keeps most ({density_text(means[most])}) and {least} least "
        f"({density_text(means[least])}){', mean over the panels' * (len(drawn) > 1)}. "
        "Dashed: the whole network's density."
    )


def _draw_layer(panel: Panel, cell: Cell, name: str, color: Any, width: float) -> Any:
    levels = dense_and_tickets(cell)
    x = [_percent([row["density"] for row in rows]) for rows in levels]
    y = [_percent([row["layer_density"].get(name, 0) for row in rows]) for rows in levels]
    known = [i for i in range(len(levels)) if x[i] == x[i] and y[i] == y[i]]
    shares = [[100 * row["layer_density"].get(name, 0) for row in levels[i]] for i in known]
    record_values(panel, name, [x[i] for i in known], [summarize(layer) for layer in shares])
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
