"""Accuracy of all methods against density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lth_core.analysis.cells import open_cells
from lth_core.analysis.families import variant_verdicts, variants
from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import rewind_cells
from lth_core.analysis.structures import only_structures
from lth_core.analysis.verdict import words_by_level
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, names_text, seeds_text, sentences
from tracking.figures.drawing.lines import (
    ACCURACY,
    DENSITY_TEXT,
    MOST_BANDS,
    REMAINING,
    dense_means,
    draw_variants,
    grouped,
)
from tracking.figures.drawing.panels import (
    accuracy_scale,
    limits,
    panels,
    side_legend,
    stretch,
    unstretch,
)
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.figures.drawing.styles import DENSE
from tracking.figures.drawing.verdict_marks import draw_margin, mark_handles, marks_text

NO_BANDS = "With so many lines intervals are left out; the table of methods has them."


def by_method(
    records: Sequence[Record],
    axes: Sequence[str],
    rule: VerdictRule = DEFAULT_RULE,
) -> StudyFigure | None:
    """Mean final test accuracy (%) of each method against density (%).

    Matching and winning tickets are marked, and the margin below dense is a line.

    None for a single method without retrainings. Also None for one method with retrainings in a
    study of rewind points, and where all methods remove channels or neurons: these have figures of
    their own.

    Args:
        rule: margin, confidence and adjustment of the verdicts.
    """
    compared = variants(records)
    if len(compared) < 2 or only_structures(records, axes):
        return None
    if len(methods(records)) < 2 and rewind_cells(records, axes):
        return None
    figure, drawn = panels(
        open_cells(records, axes), REMAINING, ACCURACY, x_text=DENSITY_TEXT, unit="%"
    )
    above, reached = dict[str, Any](), list[float]()
    for panel, cell in drawn:
        for mean in dense_means(cell):
            line = panel.axhline(mean, color=DENSE, linewidth=1.4, linestyle=(0, (5, 2)))
            above |= {"dense": line, **draw_margin(panel, mean, rule.margin)}
            reached += [mean, mean - 100 * rule.margin]
    judged = [variant_verdicts(cell, compared, rule) for _, cell in drawn]
    words = [{v: words_by_level(found) for v, found in each.items()} for each in judged]
    handles, points = draw_variants(drawn, compared, "final_test_accuracy", 100, words)
    if points:
        reached += [point.value.mean for point in points]
        accuracy_scale(drawn[0][0], *unstretch(limits(list(map(stretch, reached)))))
    seen = {word for cell in words for levels in cell.values() for word in levels.values()}
    side_legend(figure, {"": above | mark_handles(seen, DENSE), **grouped(handles)})
    few = len(compared) <= MOST_BANDS
    several = f"{len(methods(records))} methods"
    names = names_text([variant.name for variant in compared]) if few else several
    figure.caption = sentences(
        f"Test accuracy of {names} at the end of training,",
        f"{seeds_text([cell for _, cell in drawn])}.",
        marks_text(seen, rule.margin),
        intervals_text([p.value for p in points], drawn[0][0]) if few else NO_BANDS,
    )
    return figure
