"""Accuracy of each branch against the rewind point, a panel a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lth_core.analysis.groups import key_of, values_of
from lth_core.analysis.rewinds import rewind_cells, rewind_points, rewind_series
from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, names_text, seeds_text, sentences
from tracking.figures.drawing.lines import (
    ACCURACY,
    draw_dense,
    shown_branches,
)
from tracking.figures.drawing.panels import by_level, fit_accuracy_scale, legend, panels
from tracking.figures.drawing.rewind_axis import POINT, POINT_TEXT, draw_along, rewind_axis
from tracking.figures.drawing.study_figure import StudyFigure, record_values
from tracking.figures.drawing.styles import branch_styles, branch_width
from tracking.figures.drawing.verdict_marks import (
    draw_margin,
    margin_below,
    mark_handles,
    mark_tickets,
    marks_text,
    verdict_words,
)


def rewind(
    records: Sequence[Record],
    axes: Sequence[str],
    rule: VerdictRule = DEFAULT_RULE,
) -> StudyFigure | None:
    """Mean final test accuracy (%) of each branch against the rewind point.

    Matching and winning tickets are marked, and the margin below dense is a line. None where the
    study has only one rewind point.

    Args:
        rule: margin, confidence and adjustment of the verdicts.
    """
    cells = rewind_cells(records, axes)
    levels = by_level(cells)
    if not levels:
        return None
    figure, drawn = panels(
        [cell for _, cell in levels], POINT, ACCURACY, x_text=POINT_TEXT, unit="%"
    )
    positions, styles = rewind_axis(drawn, cells), branch_styles(cells)
    handles, shown, seen = dict[str, Any](), list[Summary](), set[str]()
    words = verdict_words(records, axes, rule)
    setting = values_of([axis for axis in axes if axis != "seed"])
    for (panel, cell), (level, _) in zip(drawn, levels, strict=False):
        if dense := cell.series("dense", "final_test_accuracy", 100):
            handles["dense"] = draw_dense(panel, dense)
            record_values(panel, "dense", [0], [dense[0].value], ["any"])
            handles |= draw_margin(panel, dense[0].value.mean, rule.margin)
            shown += [dense[0].value, margin_below(dense[0].value, rule.margin)]
        points = rewind_points(cell)
        ticket_words = {
            p.name: words.get((key_of(setting(p.cell.records[0])), level), "") for p in points
        }
        for branch in reversed(shown_branches(cell)):
            values = rewind_series(points, branch, level, "final_test_accuracy", 100)
            if values:
                notes = [ticket_words[name] if branch == "ticket" else "" for name in values]
                handles[branch] = draw_along(
                    panel, branch, positions, values, *styles[branch],
                    linewidth=branch_width(branch), notes=notes,
                )  # fmt: skip
                x, means = [positions[name] for name in values], [v.mean for v in values.values()]
                mark_tickets(panel, x, means, notes)
                seen |= set(notes)
                shown += values.values()
    fit_accuracy_scale(drawn[0][0], shown)
    names = [name for name in styles if name in handles]
    margins = {name: line for name, line in handles.items() if name not in names}
    legend(figure, {name: handles[name] for name in names} | margins | mark_handles(seen))
    figure.caption = sentences(
        f"Test accuracy of {names_text(names)} at the end of training, "
        f"{seeds_text([cell for _, cell in drawn])}, a panel a density.",
        marks_text(seen, rule.margin),
        intervals_text(shown, drawn[0][0]),
    )
    return figure
