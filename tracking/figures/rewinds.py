"""Against the rewind point: accuracy of the branches, stability of training, travel of weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from lth_core.analysis.cells import Cell, Record, spread
from lth_core.analysis.rewinds import (
    MOST_LEVELS,
    STABLE_BELOW,
    along,
    level_density,
    rewind_cells,
    rewind_points,
)
from lth_core.analysis.verdict import Summary
from tracking.figures.branches import LINE_WIDTHS, branch_styles, shown_branches
from tracking.figures.drawing import ACCURACY, DENSE, CurvesOf, draw_dense, draw_values
from tracking.figures.panels import (
    INK,
    SHADES,
    Panel,
    accuracy_scale,
    by_level,
    legend,
    limits,
    panels,
    plain,
    stretch,
    unstretch,
)
from tracking.text import density_text

POINT = "Rewind point: step, and share of training (evenly spaced, not to scale)"
BARRIER = "Rise of test error between two runs (points)"
TRAVEL = "Mean distance that kept weights travel"
MOST_TICKS = 9
MARKERS = "os^Dv<>"


def rewind(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure | None:
    """Mean final test accuracy (%) of each branch against the rewind point, a panel a level.

    None where a study has not several rewind points, as in all figures of this file.
    """
    found = rewind_cells(records, axes)
    levels = by_level(found)
    if not levels:
        return None
    figure, drawn = panels([cell for _, cell in levels], POINT, ACCURACY)
    place, styles = _rewind_axis(drawn, found), branch_styles(found)
    handles, shown = dict[str, Any](), list[Summary]()
    for (panel, cell), (level, _) in zip(drawn, levels, strict=False):
        if dense := cell.series("dense", "final_test_accuracy", 100):
            handles["dense"] = draw_dense(panel, dense)
            shown.append(dense[0].value)
        for branch in reversed(shown_branches(cell)):
            values = along(rewind_points(cell), branch, level, "final_test_accuracy", 100)
            if values:
                wide = LINE_WIDTHS.get(branch, 1.6)
                handles[branch] = _draw(panel, place, values, *styles[branch], linewidth=wide)
                shown += values.values()
    means = [stretch(value.mean) for value in shown]
    bounds = [(stretch(value.low), stretch(value.high)) for value in shown if value.low is not None]
    accuracy_scale(drawn[0][0], *unstretch(limits(means, bounds)))
    legend(figure, {name: handles[name] for name in styles if name in handles})
    return figure


def stability(
    records: Sequence[Record],
    axes: Sequence[str],
    curves: CurvesOf,
    stable_below: float = STABLE_BELOW,
) -> Figure | None:
    """Mean test barrier (points) of dense runs and of tickets against the rewind point.

    Args:
        stable_below: barrier, as a fraction, that is marked.
    """
    found = [cell for cell in rewind_cells(records, axes) if _has(cell, "twin", "test_barrier")]
    if not found:
        return None
    figure, drawn = panels(found, POINT, BARRIER)
    place, looks, threshold = _rewind_axis(drawn, found), _level_looks(found), 100 * stable_below
    handles, shown = dict[str, Any](), list[Summary]()
    for panel, cell in drawn:
        line = panel.axhline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for level, (name, *look) in {0: ("dense", DENSE, "X"), **looks}.items():
            if values := along(rewind_points(cell), "twin", level, "test_barrier", 100):
                handles[name] = _draw(panel, place, values, *look)
                shown += values.values()
    drawn[0][0].set_ylim(*_limits(shown, [0, threshold]))
    legend(figure, {**handles, f"stable below {threshold:g} points": line})
    return figure


def rewind_travel(
    records: Sequence[Record], axes: Sequence[str], curves: CurvesOf
) -> Figure | None:
    """Mean distance (absolute, of weights) of tickets from start to end, against the rewind point;
    one line a density."""
    found = [cell for cell in rewind_cells(records, axes) if _has(cell, "ticket", "travel")]
    if not found:
        return None
    figure, drawn = panels(found, POINT, TRAVEL)
    place, looks = _rewind_axis(drawn, found), _level_looks(found)
    handles, shown = dict[str, Any](), list[Summary]()
    for panel, cell in drawn:
        for level, (name, *look) in looks.items():
            if values := along(rewind_points(cell), "ticket", level, "travel"):
                handles[name] = _draw(panel, place, values, *look)
                shown += values.values()
    drawn[0][0].set_ylim(*_limits(shown, [0]))
    legend(figure, handles)
    return figure


def _has(cell: Cell, branch: str, key: str) -> bool:
    return any(r["branch"] == branch and r.get(key) is not None for r in cell.records)


def _level_looks(found: Sequence[Cell]) -> dict[int, tuple[str, Any, str]]:
    """Density, colour and marker of the levels shown: the sparser, the paler."""
    whole = replace(found[0], records=[record for cell in found for record in cell.records])
    levels = spread(list(whole.levels("ticket")), MOST_LEVELS)
    return {
        level: (
            f"{density_text(level_density(whole, level))} of the weights",
            SHADES(0.95 - 0.75 * i / max(len(levels) - 1, 1)),
            MARKERS[i],
        )
        for i, level in enumerate(levels)
    }


def _draw(
    panel: Panel,
    place: Mapping[str, int],
    values: Mapping[str, Summary],
    color: Any,
    marker: str,
    **style: Any,
) -> Any:
    x = [place[name] for name in values]
    return draw_values(panel, x, list(values.values()), color, marker, **style)


def _limits(values: Sequence[Summary], also: Sequence[float]) -> tuple[float, float]:
    """As `limits`, but hardly below 0, where neither distances nor barriers are."""
    bounds = [(v.low, v.high) for v in values if v.low is not None and v.high is not None]
    low, high = limits([*(v.mean for v in values), *also], bounds)
    return max(low, min([-0.04 * high, *(v.mean for v in values)])), high


def _rewind_axis(drawn: Sequence[tuple[Panel, Cell]], found: Sequence[Cell]) -> dict[str, int]:
    """Label the x axis that the panels share; returns the places of rewind points by name.

    Places are evenly spaced: the telling points lie close together at the start of training, and
    others at its end.
    """
    steps: dict[str, list[int]] = defaultdict(list)
    labels: dict[str, set[str]] = defaultdict(set)
    for cell in found:
        total = max((record["steps"] for record in cell.records), default=0)
        for point in rewind_points(cell):
            steps[point.name].append(point.step)
            share = f"\n{100 * point.step / total:.3g}%" if total >= point.step else ""
            labels[point.name].add(f"{point.step}{share}")
    names = sorted(steps, key=lambda name: (fmean(steps[name]), name))
    # Where trainings differ in length, one name is several steps.
    said = [labels[name].pop() if len(labels[name]) == 1 else plain(name) for name in names]
    shown = range(0, len(names), ceil(len(names) / MOST_TICKS))
    first = drawn[0][0]
    first.set_xlim(-0.4, len(names) - 0.6)
    first.set_xticks(list(shown), [said[i] for i in shown])
    for panel, _ in drawn:
        panel.tick_params(axis="x", labelsize=8)
    return {name: i for i, name in enumerate(names)}
