"""Accuracy of each branch against density, a panel a cell, with the verdicts on the ticket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lth_core.analysis.cells import cells
from lth_core.analysis.groups import key_of
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, names_text, seeds_text, sentences
from tracking.figures.drawing.lines import (
    ACCURACY,
    DENSITY_TEXT,
    REMAINING,
    draw_branches,
    name_lines,
    shown_branches,
)
from tracking.figures.drawing.panels import fit_accuracy_scale, legend, panels
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.figures.drawing.verdict_marks import (
    draw_margin,
    margin_below,
    mark_handles,
    mark_tickets,
    marks_text,
    verdict_words,
)


def accuracy(
    records: Sequence[Record],
    axes: Sequence[str],
    rule: VerdictRule = DEFAULT_RULE,
) -> StudyFigure | None:
    """Mean final test accuracy (%) of each branch against density (%), with 95% intervals.

    Matching and winning tickets are marked, and the margin below dense is a line. None without a
    pruned network.

    Args:
        rule: margin, confidence and adjustment of the verdicts.
    """
    if not any(record["level"] and record["density"] for record in records):
        return None
    figure, drawn = panels(cells(records, axes), REMAINING, ACCURACY, x_text=DENSITY_TEXT, unit="%")
    words = verdict_words(records, axes, rule)
    notes = [_by_level(words, key_of(list(cell.values.values()))) for _, cell in drawn]
    handles, points = draw_branches(drawn, "final_test_accuracy", 100, notes)
    shown = [point.value for point in points]
    for (panel, cell), levels in zip(drawn, notes, strict=True):
        tickets = [p for p in cell.series("ticket", "final_test_accuracy", 100) if p.density > 0]
        means = [point.value.mean for point in tickets]
        ticket_words = [levels.get(point.level, "") for point in tickets]
        mark_tickets(panel, [100 * point.density for point in tickets], means, ticket_words)
        for dense in cell.series("dense", "final_test_accuracy", 100):
            handles |= draw_margin(panel, dense.value.mean, rule.margin)
            shown.append(margin_below(dense.value, rule.margin))
    fit_accuracy_scale(drawn[0][0], shown)
    seen = {word for levels in notes for word in levels.values()}
    if len(drawn) == 1:
        name_lines(figure, drawn, handles)
        legend(figure, mark_handles(seen))
    else:
        legend(figure, {**handles, **mark_handles(seen)})
    branches = dict.fromkeys(branch for _, cell in drawn for branch in shown_branches(cell))
    figure.caption = sentences(
        f"Test accuracy of {names_text(list(branches))} at the end of training, "
        f"{seeds_text([cell for _, cell in drawn])}.",
        marks_text(seen, rule.margin),
        intervals_text([point.value for point in points], drawn[0][0]),
    )
    return figure


def _by_level(words: Mapping[tuple[str, int], str], cell: str) -> dict[int, str]:
    """Words of one cell's verdicts, by level."""
    return {level: word for (key, level), word in words.items() if key == cell}
