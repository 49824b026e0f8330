"""A grid of panels, one a cell, with its scales, legend and colour bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, floor, log10
from statistics import fmean
from textwrap import wrap
from typing import Any, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from lth_core.analysis.cells import Cell, evenly_spaced
from lth_core.analysis.rewinds import MOST_LEVELS, level_density
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.text import density_text, range_text

Panel: TypeAlias = Axes
"""Panel here, because the axes of this project are a study's."""

MOST_PANELS = 12
WIDEST = 10.8
"""Largest width of a figure, in inches; a page shows it unscaled, with letters of one size."""
SIZES = {1: (6.8, 3.9), 2: (5.2, 3.3)}
"""Width and height of a panel, in inches, by the number of columns; `SMALL` with more."""
SMALL = (3.55, 2.7)
NAME_HEIGHT = 0.18
"""Height of a line's name beside it, in inches."""
LEAST_ERROR = 0.1
"""Points added to the error on accuracy axes, so that 100% has a finite position."""
INK, FAINT, GRID = "#333333", "#8a8a8a", (0.2, 0.2, 0.2, 0.13)
SHADES = ListedColormap(colormaps["viridis"].resampled(256)(range(230))).reversed()
"""Colours from pale to dark, without the yellow end, which is hard to see on white."""


def by_level(cells: Sequence[Cell]) -> list[tuple[int, Cell]]:
    """Levels above 0, each with a cell of its records and the dense run's.

    Many levels are thinned evenly. The cell's label has the density: the mean over the level's
    tickets.
    """
    most = max(3, min(MOST_LEVELS, MOST_PANELS // max(len(cells), 1)))
    levels = []
    for cell in cells:
        for level in evenly_spaced(list(cell.levels("ticket")), most):
            rows = [record for record in cell.records if record["level"] in (0, level)]
            words = [cell.label] * bool(cell.label) + [
                f"{density_text(level_density(cell, level))} of the weights"
            ]
            levels.append((level, replace(cell, records=rows, label=", ".join(words))))
    return levels


def panels(
    cells: Sequence[Cell],
    x_label: str,
    y_label: str,
    *,
    x_text: str = "{}",
    unit: str = "",
    share_x: bool = True,
) -> tuple[StudyFigure, list[tuple[Panel, Cell]]]:
    """Figure with an empty panel for each of the first cells; the panels share the y axis.

    Args:
        x_text, unit: words of hover texts, as in `StudyFigure`.
        share_x: whether the panels share the x axis too.
    """
    shown = cells[:MOST_PANELS]
    columns = max(len(shown) if len(shown) < 4 else 2 if len(shown) == 4 else 3, 1)
    rows = max(ceil(len(shown) / columns), 1)
    wide, high = SIZES.get(columns, SMALL)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = StudyFigure((wide * columns, high * rows + 0.7), layout=layout)
    figure.x_text, figure.unit = x_text, unit
    if len(cells) > len(shown):
        left_out = len(cells) - len(shown)
        x_label += f"\n\nThe first {len(shown)} of {len(cells)} cells; {left_out} are left out."
    figure.supxlabel(x_label, color=INK, fontsize=10.5)
    label_y(figure, y_label)
    if not shown:
        return figure, []
    grid = figure.subplots(rows, columns, sharex=share_x, sharey=True, squeeze=False).flatten()
    for spare in grid[len(shown) :]:
        spare.remove()
    for lowest in grid[max(len(shown) - columns, 0) : len(shown)]:
        lowest.tick_params(labelbottom=True)
    drawn = list(zip(grid, shown, strict=False))
    for panel, cell in drawn:
        panel.set_label(cell.label)
        _style_panel(panel, cell, letters=round(10.5 * wide))
    return figure, drawn


def label_y(figure: Figure, label: str) -> None:
    """Set the label of the y axis that the panels share."""
    figure.supylabel(label, color=INK, fontsize=10.5)


def dense_and_tickets(cell: Cell) -> list[list[Record]]:
    """Records of the dense run, then of the tickets, level by level."""
    return [*cell.levels("dense").values(), *cell.levels("ticket").values()]


def _style_panel(panel: Panel, cell: Cell, letters: int) -> None:
    """Set title, grid and frame; a line of the title has at most ``letters`` characters."""
    number = range_text(cell.fewest_and_most_seeds)
    seeds = f"{number} seed{'s' * (number != '1')}"
    lines = wrap(f"{cell.label}, {seeds}" if cell.label else seeds, letters)
    if len(lines) > 3:
        lines = [*wrap(cell.label, letters, max_lines=2, placeholder=" ..."), seeds]
    panel.set_title("\n".join(lines), loc="left", parse_math=False, color=INK, fontsize=10)
    panel.patch.set_visible(False)  # a page's background shows, light or dark
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(labelsize=9, color=FAINT, labelcolor=INK)


def density_scale(panel: Panel, low: float) -> None:
    """Set a logarithmic x axis from 100% at the left down to ``low`` percent at the right."""
    low = min(low, 50)
    margin = (100 / low) ** 0.04
    panel.set_xscale("log")
    panel.set_xlim(100 * margin, low / margin)
    percent_ticks(panel.xaxis, low)


def percent_ticks(axis: Any, low: float) -> None:
    """Set at most eight round percents, from 100 down to ``low``, as a logarithmic axis's ticks."""
    decades = range(floor(log10(low)), 3)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**e for e in decades for d in digits if low <= d * 10.0**e <= 100]
        if len(ticks) <= 8:
            break
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def accuracy_scale(panel: Panel, low: float, high: float) -> None:
    """Set a y axis from ``low`` to ``high`` percent, logarithmic in the error: 99 lies as far above
    98 as 80 above 60."""
    panel.set_yscale("function", functions=(stretch, unstretch))
    panel.set_ylim(low, high)
    panel.yaxis.set_major_locator(FixedLocator(_accuracy_ticks(low, min(high, 100))))
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def fit_accuracy_scale(panel: Panel, values: Sequence[Summary]) -> None:
    """Set `accuracy_scale` to the `limits` of values in percent."""
    means = [stretch(value.mean) for value in values]
    bounds = [(stretch(low), stretch(high)) for low, high in bounds_of(values)]
    accuracy_scale(panel, *unstretch(limits(means, bounds)))


def stretch(percent: Any) -> Any:
    """Position of an accuracy in percent (number or array) on a scale logarithmic in the error;
    finite at 100."""
    return -np.log10(100 + LEAST_ERROR - np.clip(percent, -10, 100 + LEAST_ERROR / 2))


def unstretch(stretched: Any) -> Any:
    """Accuracy in percent at a position: the inverse of `stretch`."""
    return 100 + LEAST_ERROR - np.power(10.0, -np.asarray(stretched))


def _accuracy_ticks(low: float, high: float) -> list[float]:
    """Accuracies with round errors: 50, 80, 90, 95, 98, 99, 99.5. Evenly spaced accuracies where
    fewer than four of those lie between ``low`` and ``high``."""
    for digits in ((1, 2, 5), (1, 2, 3, 4, 5, 7)):
        errors = [d * 10.0**e for e in (2, 1, 0, -1) for d in digits]
        ticks = [round(100 - error, 1) for error in errors if low <= 100 - error <= high]
        if len(ticks) >= 4:
            return ticks
    return [float(tick) for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]


def bounds_of(values: Sequence[Summary]) -> list[tuple[float, float]]:
    """Intervals of the values that have one."""
    return [(v.low, v.high) for v in values if v.low is not None and v.high is not None]


def limits(
    values: Sequence[float], bounds: Sequence[tuple[float, float]] = ()
) -> tuple[float, float]:
    """Lower and upper end of an axis that has all values inside and cuts wide intervals."""
    least, most = min(values), max(values)
    narrowest = min((high - low for low, high in bounds), default=0)
    room = max(most - least, narrowest, 1e-3) / 2
    bottom = max(min((low for low, _ in bounds), default=least), least - room)
    top = min(max((high for _, high in bounds), default=most), most + room)
    margin = max(top - bottom, room) / 20
    return min(bottom, least) - margin, max(top, most) + margin


def legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    """Add one legend above all panels."""
    if handles:
        widest = 0.7 + 0.08 * max(map(len, handles))  # inches, with its sign
        columns = max(1, min(len(handles), 5, int(figure.get_size_inches()[0] / widest)))
        figure.legend(
            list(handles.values()), [plain(name) for name in handles], ncols=columns,
            loc="outside upper center", frameon=False, fontsize=10, labelcolor=INK,
        )  # fmt: skip


def side_legend(figure: Figure, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Add a legend to the right of all panels, by group; the figure grows to hold it, up to
    `WIDEST`."""
    rows: list[tuple[Any, str]] = []
    for title, handles in groups.items():
        rows += [(Line2D([], [], linestyle=""), title)] if title else []
        rows += [(handle, plain(name)) for name, handle in handles.items()]
    wide, high = figure.get_size_inches()
    letters = max((len(name) for _, name in rows), default=0)
    wide = min(wide + 0.75 + 0.08 * letters, WIDEST)
    figure.set_size_inches(wide, max(high, 0.6 + 0.19 * len(rows)))
    drawn = figure.legend(
        [handle for handle, _ in rows], [name for _, name in rows], loc="outside right upper",
        frameon=False, fontsize=9, labelcolor=INK, handlelength=3.2, labelspacing=0.35,
    )  # fmt: skip
    for text in drawn.get_texts():
        if text.get_text() in groups:
            text.set_fontweight("bold")


def color_bar(figure: Figure, norm: Any, beside: list[Panel], label: str) -> Any:
    """Add a colour bar of `SHADES` beside the panels."""
    bar = figure.colorbar(ScalarMappable(norm, SHADES), ax=beside, pad=0.02, aspect=30)
    bar.set_label(label, color=INK, fontsize=10.5)
    bar.ax.tick_params(which="both", labelsize=9, color=FAINT, labelcolor=INK)
    bar.outline.set_visible(False)
    return bar


def plain(text: str) -> str:
    """Label that matplotlib shows unchanged: `$` starts no formula, `_` hides nothing."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def name_ends(panel: Panel, ends: Sequence[tuple[str, float, Any]]) -> None:
    """Write names of lines at the panel's right edge, at their last values, apart from each other.

    Args:
        ends: name, last value and colour of each line; the panel's limits are final.
    """
    apart = NAME_HEIGHT / (SIZES[1][1] * 0.72)
    to_axes = panel.transData + panel.transAxes.inverted()
    placed = sorted((float(to_axes.transform((1, y))[1]), name, ink) for name, y, ink in ends)
    heights = spread([height for height, *_ in placed], apart)
    for height, (_, name, ink) in zip(heights, placed, strict=True):
        panel.text(
            1.015, height, plain(name), transform=panel.transAxes, color=ink, va="center",
            fontsize=10,
        )  # fmt: skip


def spread(heights: Sequence[float], apart: float) -> list[float]:
    """Heights in [0, 1] nearest to rising ones (least squares) that are at least ``apart``.

    >>> [round(height, 2) for height in spread([0.2, 0.5, 0.5], 0.1)]
    [0.2, 0.45, 0.55]
    """
    blocks: list[list[float]] = []
    for i, height in enumerate(heights):
        blocks.append([height - i * apart])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    highest = max(1 - (len(heights) - 1) * apart, 0.0)
    places = [min(max(fmean(block), 0.0), highest) for block in blocks for _ in block]
    return [place + i * apart for i, place in enumerate(places)]
