"""Lines that several figures draw: a mean with its band, branches, methods; their axes' labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from matplotlib.colors import to_rgb

from lth_core.analysis.cells import Cell, Point
from lth_core.analysis.families import Variant, by_family
from lth_core.analysis.groups import methods
from lth_core.analysis.summary import Summary
from lth_core.jobs.branches import NOT_COMPARED
from tracking.figures.drawing.panels import Panel, density_scale, legend, name_ends
from tracking.figures.drawing.study_figure import StudyFigure, record_values
from tracking.figures.drawing.styles import DENSE, branch_styles, branch_width, variant_styles
from tracking.figures.drawing.verdict_marks import mark_tickets

ACCURACY = "Test accuracy (%, log scale of error)"
REMAINING = "Weights remaining (%, log scale)"
DENSITY_TEXT = "density {}%"
"""Words of a density in hover texts."""
MOST_BANDS = 6
"""Largest number of methods in a panel with intervals; more would hide the lines."""


def draw_line(
    panel: Panel,
    name: str,
    points: list[Point],
    color: Any,
    marker: str,
    *,
    notes: Mapping[int, str] | None = None,
    **options: Any,
) -> Any:
    """Draw means against density (%), as `draw_values` does; returns the line.

    Args:
        notes: more about a value, by level.
    """
    x, values = [100 * point.density for point in points], [point.value for point in points]
    texts = [(notes or {}).get(point.level, "") for point in points]
    return draw_values(panel, name, x, values, color, marker, notes=texts, **options)


def draw_values(
    panel: Panel,
    name: str,
    x: Sequence[float],
    values: Sequence[Summary],
    color: Any,
    marker: str,
    *,
    band: bool = True,
    names: Sequence[str] | None = None,
    notes: Sequence[str] | None = None,
    **style: Any,
) -> Any:
    """Draw means against x, with their 95% intervals as a band; returns the line.

    Args:
        name: the line's, in hover texts and the CSV file.
        names, notes: as in `record_values`.
    """
    if band and any(value.low is not None for value in values):
        lows = [nan if value.low is None else value.low for value in values]
        highs = [nan if value.high is None else value.high for value in values]
        panel.fill_between(x, lows, highs, color=color, alpha=0.14, linewidth=0)
        for i in _without_neighbours(values):  # a band from a point to itself is not seen
            panel.vlines(x[i], lows[i], highs[i], color=color, alpha=0.14, linewidth=9)
    look = {"markersize": 4.5, "linewidth": 1.6, **style}
    (line,) = panel.plot(x, [value.mean for value in values], color=color, marker=marker, **look)
    record_values(panel, name, x, values, names, notes)
    return line


def _without_neighbours(values: Sequence[Summary]) -> list[int]:
    """Positions of values whose interval begins no band with that of the value beside it."""
    has = [False, *(value.low is not None for value in values), False]
    return [i for i in range(len(values)) if has[i + 1] and not has[i] and not has[i + 2]]


def draw_dense(panel: Panel, points: list[Point]) -> Any:
    """Draw the dense run's mean across the panel, with its 95% interval; returns the line."""
    value = points[0].value  # the dense run has level 0 alone
    if value.low is not None and value.high is not None:
        panel.axhspan(value.low, value.high, color=DENSE, alpha=0.12, linewidth=0)
    return panel.axhline(value.mean, color=DENSE, linewidth=1.6, linestyle=(0, (5, 2)))


def dense_means(cell: Cell) -> list[float]:
    """Mean final test accuracies (%) of the cell's dense runs; most methods share one run."""
    names = methods(cell.records)
    series = [cell.of_method(name).series("dense", "final_test_accuracy", 100) for name in names]
    return sorted({round(points[0].value.mean, 9) for points in series if points})


def shown_branches(cell: Cell) -> list[str]:
    """Names of the cell's branches that have a line."""
    return [branch for branch in cell.branches if branch not in NOT_COMPARED]


def draw_branches(
    drawn: Sequence[tuple[Panel, Cell]],
    key: str,
    scale: float = 1,
    notes: Sequence[Mapping[int, str]] | None = None,
) -> tuple[dict[str, Any], list[Point]]:
    """Draw each branch against density in each panel; returns its line, and the points drawn.

    Args:
        key: the record's field.
        scale: factor on the field's values, also on the returned ones.
        notes: more about the ticket's values by level, for each panel.
    """
    styles, handles, shown = branch_styles([cell for _, cell in drawn]), dict[str, Any](), []
    for i, (panel, cell) in enumerate(drawn):
        for branch in reversed(shown_branches(cell)):
            points = [p for p in cell.series(branch, key, scale) if p.density > 0]
            if not points:
                continue
            if branch == "dense":
                handles[branch] = draw_dense(panel, points)
                record_values(panel, branch, [100.0], [points[0].value])
            else:
                handles[branch] = draw_line(
                    panel, branch, points, *styles[branch], linewidth=branch_width(branch),
                    notes=notes[i] if notes and branch == "ticket" else None,
                )  # fmt: skip
            shown += points
    if shown:
        density_scale(drawn[0][0], 100 * min(point.density for point in shown))
    return {name: handles[name] for name in styles if name in handles}, shown


def name_lines(
    figure: StudyFigure, drawn: Sequence[tuple[Panel, Cell]], handles: Mapping[str, Any]
) -> None:
    """Name lines at the end of each in a single panel, and in a legend above several panels.

    Args:
        handles: lines by name; the panels' limits are final.
    """
    if len(drawn) == 1:
        ends = {name: [y for y in line.get_ydata() if y == y] for name, line in handles.items()}
        inks = {name: _ink(line.get_color()) for name, line in handles.items()}
        name_ends(drawn[0][0], [(name, y[-1], inks[name]) for name, y in ends.items() if y])
    else:
        legend(figure, handles)


def _ink(color: Any) -> tuple[float, ...]:
    """A darker shade of a line's colour: letters need more contrast than lines."""
    return tuple(0.75 * part for part in to_rgb(color))


def draw_variants(
    drawn: Sequence[tuple[Panel, Cell]],
    variants: Sequence[Variant],
    key: str,
    scale: float = 1,
    words: Sequence[Mapping[Variant, Mapping[int, str]]] | None = None,
) -> tuple[dict[Variant, Any], list[Point]]:
    """Draw each method against density in each panel; returns its line, and the points drawn.

    Args:
        key, scale: as in `draw_branches`.
        words: the verdicts by level, for each panel; matching and winning tickets are marked.
    """
    styles, handles, shown = variant_styles(variants), dict[Variant, Any](), list[Point]()
    for i, (panel, cell) in enumerate(drawn):
        for variant in variants:
            if not (points := variant.series(cell, key, scale)):
                continue
            notes, style = words[i][variant] if words else {}, styles[variant]
            line = draw_line(
                panel, variant.name, points, band=len(variants) <= MOST_BANDS, notes=notes, **style
            )
            found = [notes.get(point.level, "") for point in points]
            mark_tickets(
                panel, line.get_xdata(), line.get_ydata(), found, style["color"], style["marker"]
            )
            handles.setdefault(variant, line)
            shown += points
    if shown:
        density_scale(drawn[0][0], 100 * min(point.density for point in shown))
    return {variant: handles[variant] for variant in variants if variant in handles}, shown


def grouped(handles: Mapping[Variant, Any]) -> dict[str, dict[str, Any]]:
    """Lines by the names of family and method, for the legend."""
    return {
        family: {variant.name: handles[variant] for variant in group}
        for family, group in by_family(list(handles)).items()
    }
