"""Figures of a study: pure functions from records to matplotlib figures, without pyplot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Any

from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from lth_core.training import Curves
from lth_core.verdict import Summary
from tracking.cells import Cell, Point, Record, cells
from tracking.panels import (
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

CurvesOf = Callable[[str], Curves | None]
"""From a record's `training_digest` to its learning curves, None where they are not at hand."""

MOST_CURVES = 6
MOST_NAMED_LAYERS = 10
ACCURACY = "Test accuracy (%, log scale of error)"
REMAINING = "Weights remaining (%, log scale)"
STYLES = {
    "dense": ("#4d4d4d", ""),
    "ticket": ("#0072b2", "o"),
    "reinit": ("#d55e00", "s"),
    "random_mask": ("#009e73", "^"),
    "shuffled_mask": ("#cc79a7", "v"),
}
"""Colour (Okabe and Ito's palette, safe for the colour-blind) and marker, by branch."""
OTHER_STYLES = (("#e69f00", "D"), ("#56b4e9", "P"), ("#8c6bb1", "X"), ("#a6761d", "<"))


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
        drawn[0][0].set_ylim(*limits([v.mean for v in values], bounds))
    return figure


def learning_curves(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean test accuracy (%) against step, of the dense run and of the tickets at a few levels."""
    figure, drawn = panels(cells(records, axes), "Training step", ACCURACY)
    lines = [(panel, rows) for panel, cell in drawn for rows in _spread(_levels(cell))]
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


def _draw_branches(
    figure: Figure, drawn: Sequence[tuple[Panel, Cell]], key: str, scale: float = 1
) -> list[Summary]:
    """Draw each branch's mean and band in each panel; returns all that is drawn, scaled."""
    others = sorted({name for _, cell in drawn for name in cell.branches} - set(STYLES))
    styles = {**STYLES, **dict(zip(others, OTHER_STYLES * len(others), strict=False))}
    handles: dict[str, Any] = {}
    shown: list[Point] = []
    for panel, cell in drawn:
        for branch in cell.branches:
            points = [p for p in cell.series(branch, key, scale) if p.density > 0]
            draw = _draw_dense if branch == "dense" else _draw_branch
            handles[branch] = draw(panel, points, *styles[branch])
            shown += points
    if shown:
        density_scale(drawn[0][0], 100 * min(point.density for point in shown))
    legend(figure, {name: handles[name] for name in styles if name in handles})
    return [point.value for point in shown]


def _draw_branch(panel: Panel, points: list[Point], color: str, marker: str) -> Any:
    x = [100 * point.density for point in points]
    lows = [nan if p.value.low is None else p.value.low for p in points]
    highs = [nan if p.value.high is None else p.value.high for p in points]
    panel.fill_between(x, lows, highs, color=color, alpha=0.14, linewidth=0)
    means = [point.value.mean for point in points]
    (line,) = panel.plot(x, means, color=color, marker=marker, markersize=4.5, linewidth=1.6)
    return line


def _draw_dense(panel: Panel, points: list[Point], color: str, marker: str) -> Any:
    value = points[0].value  # level 0 is all there is of it
    if value.low is not None and value.high is not None:
        panel.axhspan(value.low, value.high, color=color, alpha=0.12, linewidth=0)
    return panel.axhline(value.mean, color=color, linewidth=1.6, linestyle=(0, (5, 2)))


def _draw_layer(panel: Panel, cell: Cell, name: str, color: Any, width: float) -> Any:
    levels = _levels(cell)
    x = [_percent([row["density"] for row in rows]) for rows in levels]
    y = [_percent([row["layer_density"].get(name, 0) for row in rows]) for rows in levels]
    (line,) = panel.plot(x, y, color=color, linewidth=width, marker=".", markersize=4)
    return line


def _levels(cell: Cell) -> list[list[Record]]:
    """The dense run's records, then the tickets', level by level."""
    return [*cell.levels("dense").values(), *cell.levels("ticket").values()]


def _spread(levels: list[list[Record]]) -> list[list[Record]]:
    """At most `MOST_CURVES` of the levels, evenly spaced, the first and the last among them."""
    most, last = min(MOST_CURVES, len(levels)), len(levels) - 1
    return [levels[round(i * last / max(most - 1, 1))] for i in range(most)]


def _percent(shares: Sequence[float]) -> float:
    """Their mean; NaN, which is not drawn, for 0, which a logarithmic axis never reaches."""
    return 100 * fmean(shares) if any(shares) else nan


def _mean_curve(rows: Sequence[Record], curves: CurvesOf) -> tuple[list[int], list[float]]:
    """Steps at which every seed's curve was evaluated, and mean test accuracy (%) there."""
    found = [curve for row in rows if (curve := curves(row["training_digest"]))]
    by_step = [dict(zip(c.step, c.test_accuracy, strict=True)) for c in found]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    return steps, [100 * fmean(values[step] for values in by_step) for step in steps]


def _layers(records: Sequence[Record]) -> list[str]:
    """Names of all layers, in the order of the deepest network."""
    named = [list(record["layer_density"]) for record in records]
    deepest: list[str] = max(named, key=len, default=[])
    return deepest + sorted({name for names in named for name in names} - set(deepest))


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with its words; the caption says what is drawn and what to look for."""

    draw: Callable[[Sequence[Record], Sequence[str], CurvesOf], Figure]
    title: str
    caption: str


FIGURES = {
    "accuracy": Chart(
        accuracy,
        "Accuracy against density",
        "Mean final test accuracy over seeds while weights are pruned, from dense at the left to "
        "sparse at the right. Where the ticket stays with the dense run and reinit falls behind, "
        "it is the initial weights that matter, not the structure alone. Bands are 95% "
        "t-intervals, cut where they would dwarf the lines. The accuracy axis is logarithmic in "
        "the error: 99 lies as far above 98 as 80 above 60.",
    ),
    "early_stop": Chart(
        early_stop,
        "Early-stop step against density",
        "Mean step of the lowest validation loss, counted from the start of the dense run's "
        "schedule: lower is faster. Bands are 95% t-intervals, cut where they would dwarf the "
        "lines.",
    ),
    "learning_curves": Chart(
        learning_curves,
        "Learning curves",
        "Mean test accuracy over seeds during training: the dense run (darkest) and the tickets "
        "of a few levels, the paler the sparser.",
    ),
    "layer_density": Chart(
        layer_density,
        "Density layer by layer",
        "Where the ticket keeps its weights: a layer above the dashed diagonal keeps a larger "
        "share than the network as a whole. A line that ends early is a layer with none left.",
    ),
}
"""The report's figures by file name, in the report's order."""
