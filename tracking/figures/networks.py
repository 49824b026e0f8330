"""What becomes of the networks: learning curves, and where the weights are kept."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from statistics import fmean
from typing import Any

from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from lth_core.analysis.cells import Cell, Record, cells, spread
from lth_core.analysis.rewinds import axes_that_matter
from lth_core.store.decode import side_by_side
from tracking.figures.drawing import ACCURACY, REMAINING, CurvesOf
from tracking.figures.panels import (
    FAINT,
    SHADES,
    Panel,
    accuracy_scale,
    color_bar,
    density_scale,
    legend,
    limits,
    panels,
    percent_ticks,
    plain,
    stretch,
    unstretch,
)

MOST_CURVES = 6
MOST_NAMED_LAYERS = 10


def learning_curves(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean test accuracy (%) against step, of the dense run and of the tickets at a few levels."""
    figure, drawn = panels(cells(records, axes), "Training step", ACCURACY)
    lines = [(panel, rows) for panel, cell in drawn for rows in spread(_levels(cell), MOST_CURVES)]
    percents = [100 * fmean(row["density"] for row in rows) for _, rows in lines]
    low = min([50.0, *filter(None, percents)])
    norm = LogNorm(low, 100, clip=True)
    reached: list[float] = []
    for (panel, rows), percent in zip(lines, percents, strict=True):
        steps, means = _mean_curve(rows, curves)
        panel.plot(steps, means, color=SHADES(norm(percent)), linewidth=1.6)
        reached += means
    if reached:
        accuracy_scale(drawn[0][0], *unstretch(limits(list(map(stretch, reached)))))
    if drawn:
        bar = color_bar(figure, norm, [panel for panel, _ in drawn], REMAINING)
        percent_ticks(bar.ax.yaxis, low)
    return figure


def layer_density(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean density (%) of each layer of the tickets against density (%), both logarithmic."""
    axes = axes_that_matter(records, axes, ["density", "layer_density"])
    figure, drawn = panels(cells(records, axes), REMAINING, "Weights remaining in the layer (%)")
    names = _layers(records)
    depth = Normalize(0, len(names) - 1)
    handles: dict[str, Any] = {}
    for panel, cell in drawn:
        panel.axline((100, 100), (1, 1), color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        for i, name in enumerate(names):
            # Layers of equal density lie on each other: the earlier ones show as a rim.
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
    levels = _levels(cell)
    x = [_percent([row["density"] for row in rows]) for rows in levels]
    y = [_percent([row["layer_density"].get(name, 0) for row in rows]) for rows in levels]
    (line,) = panel.plot(x, y, color=color, linewidth=width, marker=".", markersize=4)
    return line


def _levels(cell: Cell) -> list[list[Record]]:
    """The dense run's records, then the tickets', level by level."""
    return [*cell.levels("dense").values(), *cell.levels("ticket").values()]


def _percent(shares: Sequence[float]) -> float:
    """Their mean; NaN, which is not drawn, for 0, which a logarithmic axis never reaches."""
    return 100 * fmean(shares) if any(shares) else nan


def _mean_curve(rows: Sequence[Record], curves: CurvesOf) -> tuple[list[int], list[float]]:
    """Steps at which every seed's curve was evaluated, and mean test accuracy (%) there."""
    digests = (row["training_digest"] for row in rows)
    found = [curve for curve in side_by_side(curves, digests) if curve]
    by_step = [dict(zip(c.step, c.test_accuracy, strict=True)) for c in found]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    return steps, [100 * fmean(values[step] for values in by_step) for step in steps]


def _layers(records: Sequence[Record]) -> list[str]:
    """Names of all layers, in the order of the deepest network."""
    named = [list(record["layer_density"]) for record in records]
    deepest: list[str] = max(named, key=len, default=[])
    return deepest + sorted({name for names in named for name in names} - set(deepest))
