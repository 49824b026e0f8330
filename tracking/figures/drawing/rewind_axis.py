"""The axis of rewind points, and the lines against it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from statistics import fmean
from typing import Any

from lth_core.analysis.cells import Cell, evenly_spaced
from lth_core.analysis.rewinds import MOST_LEVELS, level_density, rewind_cells, rewind_points
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.lines import draw_values
from tracking.figures.drawing.panels import SHADES, Panel, bounds_of, limits, plain
from tracking.text import density_text

POINT = "Rewind point: step, and share of training (evenly spaced, not to scale)"
POINT_TEXT = "rewind point {}"
"""Words of a rewind point in hover texts."""
MOST_TICKS = 9
LEVEL_MARKERS = "os^Dv<>"


def cells_with(records: Sequence[Record], axes: Sequence[str], branch: str, key: str) -> list[Cell]:
    """Cells of several rewind points whose branch has a value of the field in some record."""
    return [
        cell
        for cell in rewind_cells(records, axes)
        if any(r["branch"] == branch and r.get(key) is not None for r in cell.records)
    ]


def level_styles(cells: Sequence[Cell]) -> dict[int, tuple[str, Any, str]]:
    """Density in words, colour and marker of each level shown: the sparser, the paler."""
    merged = replace(cells[0], records=[record for cell in cells for record in cell.records])
    levels = evenly_spaced(list(merged.levels("ticket")), MOST_LEVELS)
    return {
        level: (
            f"{density_text(level_density(merged, level))} of the weights",
            SHADES(0.95 - 0.75 * i / max(len(levels) - 1, 1)),
            LEVEL_MARKERS[i],
        )
        for i, level in enumerate(levels)
    }


def draw_along(
    panel: Panel,
    name: str,
    positions: Mapping[str, int],
    values: Mapping[str, Summary],
    color: Any,
    marker: str,
    **style: Any,
) -> Any:
    """Draw means by the names of rewind points, with their 95% intervals; returns the line.

    Args:
        name: the line's.
        positions: the result of `rewind_axis`.
    """
    x, names = [positions[name] for name in values], list(values)
    return draw_values(panel, name, x, list(values.values()), color, marker, names=names, **style)


def limits_above_zero(values: Sequence[Summary], others: Sequence[float]) -> tuple[float, float]:
    """`limits` of values and other numbers, cut just below 0, because distances are not negative
    and barriers hardly are."""
    low, high = limits([*(v.mean for v in values), *others], bounds_of(values))
    return max(low, min([-0.04 * high, *(v.mean for v in values)])), high


def rewind_axis(drawn: Sequence[tuple[Panel, Cell]], cells: Sequence[Cell]) -> dict[str, int]:
    """Label the x axis that the panels share; returns positions on it by rewind point's name.

    Positions are evenly spaced: the points of interest lie close together at the start of training,
    and others at its end.
    """
    steps: dict[str, list[int]] = defaultdict(list)
    labels: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        dense = [record["steps"] for record in cell.records if record["branch"] == "dense"]
        total = max(dense, default=0)
        for point in rewind_points(cell):
            steps[point.name].append(point.step)
            share = f"\n{100 * point.step / total:.3g}%" if 0 < total >= point.step else ""
            labels[point.name].add(f"{point.step}{share}")
    names = sorted(steps, key=lambda name: (fmean(steps[name]), name))
    # Where trainings differ in length, one name stands for several steps.
    texts = [labels[name].pop() if len(labels[name]) == 1 else plain(name) for name in names]
    shown = range(0, len(names), ceil(len(names) / MOST_TICKS))
    first = drawn[0][0]
    first.set_xlim(-0.4, len(names) - 0.6)
    first.set_xticks(list(shown), [texts[i] for i in shown])
    for panel, _ in drawn:
        panel.tick_params(axis="x", labelsize=8)
    return {name: i for i, name in enumerate(names)}
