"""Accuracy of each branch against density, a panel a cell, with the verdicts on the ticket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D

from lth_core.analysis.cells import Cell, Point, cells
from lth_core.analysis.groups import group_by, key_of
from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict import verdicts
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from lth_core.columns import Record
from tracking.figures.drawing.captions import (
    intervals_text,
    names_text,
    points_text,
    seeds_text,
    sentences,
)
from tracking.figures.drawing.lines import (
    ACCURACY,
    DENSITY_TEXT,
    REMAINING,
    CurvesOf,
    draw_branches,
    name_lines,
    no_curves,
    shown_branches,
)
from tracking.figures.drawing.panels import Panel, fit_accuracy_scale, legend, panels
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.figures.drawing.styles import DENSE, STYLES

MARKS = {"winning": STYLES["ticket"][0], "matching": "white"}
"""Fill of the ticket's mark at a level, by verdict; other levels have a dot."""


def accuracy(
    records: Sequence[Record],
    axes: Sequence[str],
    curves: CurvesOf = no_curves,
    rule: VerdictRule = DEFAULT_RULE,
) -> StudyFigure | None:
    """Mean final test accuracy (%) of each branch against density (%), with 95% intervals.

    Matching and winning tickets are marked, and the margin below dense is a line. None without a
    pruned network.

    Args:
        rule: margin, confidence and adjustment of the verdicts.
    """
    found = cells(records, axes)
    if not any(record["level"] and record["density"] for record in records):
        return None
    figure, drawn = panels(found, REMAINING, ACCURACY, x_text=DENSITY_TEXT, unit="%")
    words = _verdict_words(records, axes, rule)
    notes = [words.get(key_of(list(cell.values.values())), {}) for _, cell in drawn]
    handles, points = draw_branches(drawn, "final_test_accuracy", 100, notes)
    shown = [point.value for point in points]
    for (panel, cell), levels in zip(drawn, notes, strict=True):
        _mark_tickets(panel, cell.series("ticket", "final_test_accuracy", 100), levels)
        if line := _draw_margin(panel, cell, rule.margin):
            handles[f"dense \N{MINUS SIGN} {points_text(rule.margin)}"] = line
            shown.append(Summary(1, float(line.get_ydata()[0]), None, None, None))
    fit_accuracy_scale(drawn[0][0], shown)
    marks = _mark_handles(notes)
    if len(drawn) == 1:
        name_lines(figure, drawn, handles)
        legend(figure, marks)
    else:
        legend(figure, {**handles, **marks})
    figure.caption = _caption([cell for _, cell in drawn], notes, drawn[0][0], points, rule)
    return figure


def _verdict_words(
    records: Sequence[Record], axes: Sequence[str], rule: VerdictRule
) -> dict[str, dict[int, str]]:
    """Words of the verdicts by key of the cell and level."""
    judged = group_by(verdicts(records, axes, rule), lambda v: list(v.cell.values()))
    return {key: {v.level: v.verdict for v in found} for key, found in judged.items()}


def _mark_tickets(panel: Panel, points: Sequence[Point], words: Mapping[int, str]) -> None:
    """Mark the matching and the winning levels on the ticket's curve."""
    for word, fill in MARKS.items():
        marked = [p for p in points if words.get(p.level) == word and p.density > 0]
        if marked:
            x, y = [100 * p.density for p in marked], [p.value.mean for p in marked]
            panel.plot(x, y, linestyle="", zorder=3, **_mark(fill))


def _mark(fill: str) -> dict[str, Any]:
    return {
        "marker": "o", "markersize": 7.5, "markerfacecolor": fill,
        "markeredgecolor": STYLES["ticket"][0], "markeredgewidth": 1.6,
    }  # fmt: skip


def _mark_handles(notes: Sequence[Mapping[int, str]]) -> dict[str, Any]:
    seen = {word for levels in notes for word in levels.values()}
    return {
        f"{word} ticket": Line2D([], [], linestyle="", **_mark(fill))
        for word, fill in MARKS.items()
        if word in seen
    }


def _draw_margin(panel: Panel, cell: Cell, margin: float) -> Any:
    """Draw the margin's line and return it; None without a dense run."""
    dense = cell.series("dense", "final_test_accuracy", 100)
    if not dense:
        return None
    height = dense[0].value.mean - 100 * margin
    return panel.axhline(height, color=DENSE, linewidth=1.1, linestyle=(0, (1, 2)))


def _caption(
    shown: Sequence[Cell],
    notes: Sequence[Mapping[int, str]],
    panel: Panel,
    points: Sequence[Point],
    rule: VerdictRule,
) -> str:
    branches = list(dict.fromkeys(b for cell in shown for b in shown_branches(cell)))
    seen = {word for levels in notes for word in levels.values()}
    near = f"shown to be less than {points_text(rule.margin)} below dense"
    marks = {
        "matching": f"\N{WHITE CIRCLE}: {near}.",
        "winning": f"\N{BLACK CIRCLE}: {near}, and better than reinit.",
    }
    found = [text for word, text in marks.items() if word in seen]
    if not found:
        few = seen <= {"too few replicates"}
        found = ["Too few seeds for verdicts." if few else "No level is shown to match."]
    return sentences(
        f"Test accuracy of {names_text(branches)} at the end of training, {seeds_text(shown)}.",
        *found,
        intervals_text([point.value for point in points], panel),
    )
