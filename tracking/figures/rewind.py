"""Accuracy of each branch against the rewind point, a panel a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lth_core.analysis.rewinds import rewind_cells, rewind_points, rewind_series
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, names_text, seeds_text, sentences
from tracking.figures.drawing.lines import (
    ACCURACY,
    CurvesOf,
    draw_dense,
    no_curves,
    shown_branches,
)
from tracking.figures.drawing.panels import by_level, fit_accuracy_scale, legend, panels
from tracking.figures.drawing.rewind_axis import POINT, POINT_TEXT, draw_along, rewind_axis
from tracking.figures.drawing.study_figure import StudyFigure, record_values
from tracking.figures.drawing.styles import branch_styles, branch_width


def rewind(
    records: Sequence[Record], axes: Sequence[str], curves: CurvesOf = no_curves
) -> StudyFigure | None:
    """Mean final test accuracy (%) of each branch against the rewind point.

    None where the study has only one rewind point.
    """
    cells = rewind_cells(records, axes)
    levels = by_level(cells)
    if not levels:
        return None
    figure, drawn = panels(
        [cell for _, cell in levels], POINT, ACCURACY, x_text=POINT_TEXT, unit="%"
    )
    positions, styles = rewind_axis(drawn, cells), branch_styles(cells)
    handles, shown = dict[str, Any](), list[Summary]()
    for (panel, cell), (level, _) in zip(drawn, levels, strict=False):
        if dense := cell.series("dense", "final_test_accuracy", 100):
            handles["dense"] = draw_dense(panel, dense)
            record_values(panel, "dense", [0], [dense[0].value], ["any"])
            shown.append(dense[0].value)
        for branch in reversed(shown_branches(cell)):
            values = rewind_series(rewind_points(cell), branch, level, "final_test_accuracy", 100)
            if values:
                width = branch_width(branch)
                handles[branch] = draw_along(
                    panel, branch, positions, values, *styles[branch], linewidth=width
                )
                shown += values.values()
    fit_accuracy_scale(drawn[0][0], shown)
    names = [name for name in styles if name in handles]
    legend(figure, {name: handles[name] for name in names})
    figure.caption = sentences(
        f"Test accuracy of {names_text(names)} at the end of training, "
        f"{seeds_text([cell for _, cell in drawn])}, a panel a density.",
        intervals_text(shown, drawn[0][0]),
    )
    return figure
