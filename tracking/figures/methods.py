"""Accuracy of all methods against density."""

from __future__ import annotations

from collections.abc import Sequence

from lth_core.analysis.cells import open_cells
from lth_core.analysis.families import variants
from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import rewind_cells
from lth_core.analysis.structures import only_structures
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, names_text, seeds_text, sentences
from tracking.figures.drawing.lines import (
    ACCURACY,
    DENSITY_TEXT,
    MOST_BANDS,
    REMAINING,
    CurvesOf,
    dense_means,
    draw_variants,
    grouped,
    no_curves,
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

NO_BANDS = "With so many lines intervals are left out; the table of methods has them."


def by_method(
    records: Sequence[Record], axes: Sequence[str], curves: CurvesOf = no_curves
) -> StudyFigure | None:
    """Mean final test accuracy (%) of each method against density (%).

    None for a single method without retrainings. Also None for one method with retrainings in a
    study of rewind points, and where all methods remove channels or neurons: these have figures of
    their own.
    """
    compared = variants(records)
    if len(compared) < 2 or only_structures(records, axes):
        return None
    if len(methods(records)) < 2 and rewind_cells(records, axes):
        return None
    figure, drawn = panels(
        open_cells(records, axes), REMAINING, ACCURACY, x_text=DENSITY_TEXT, unit="%"
    )
    dense, reached = None, list[float]()
    for panel, cell in drawn:
        for mean in dense_means(cell):
            dense = panel.axhline(mean, color=DENSE, linewidth=1.4, linestyle=(0, (5, 2)))
            reached.append(mean)
    handles, points = draw_variants(drawn, compared, "final_test_accuracy", scale=100)
    if points:
        reached += [point.value.mean for point in points]
        accuracy_scale(drawn[0][0], *unstretch(limits(list(map(stretch, reached)))))
    side_legend(figure, {"": {"dense": dense} if dense else {}, **grouped(handles)})
    few = len(compared) <= MOST_BANDS
    several = f"{len(methods(records))} methods"
    names = names_text([variant.name for variant in compared]) if few else several
    figure.caption = sentences(
        f"Test accuracy of {names} at the end of training,",
        f"{seeds_text([cell for _, cell in drawn])}.",
        intervals_text([p.value for p in points], drawn[0][0]) if few else NO_BANDS,
    )
    return figure
