"""Learning curves of the dense run and of tickets at a few levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from matplotlib.colors import LogNorm

from lth_core.analysis.cells import cells, evenly_spaced
from lth_core.analysis.summary import Summary, summarize
from lth_core.columns import Record
from lth_core.parallel import map_in_threads
from lth_core.train.training import Curves
from tracking.figures.drawing.captions import seeds_text
from tracking.figures.drawing.lines import ACCURACY, REMAINING
from tracking.figures.drawing.panels import (
    SHADES,
    accuracy_scale,
    color_bar,
    dense_and_tickets,
    label_y,
    limits,
    panels,
    percent_ticks,
    stretch,
    unstretch,
)
from tracking.figures.drawing.study_figure import StudyFigure, record_values
from tracking.text import count, density_text

CurvesOf = Callable[[str], Curves | None]
"""Learning curves by a record's `training_digest`; None where they are missing."""
MOST_CURVES = 6


def no_curves(digest: str) -> None:
    """`CurvesOf` of a study whose curves are not at hand."""


def learning_curves(
    records: Sequence[Record], axes: Sequence[str], curves: CurvesOf = no_curves
) -> StudyFigure | None:
    """Mean test accuracy (%) against step, of the dense run and of the tickets at a few levels.

    Where some curve lacks test accuracies, the figure has validation accuracies: the steps at which
    the test examples were evaluated differ between seeds. None where no curve has two steps.
    """
    figure, drawn = panels(
        cells(records, axes), "Training step", ACCURACY, x_text="step {}", unit="%"
    )
    lines = [
        (panel, rows)
        for panel, cell in drawn
        for rows in evenly_spaced(dense_and_tickets(cell), MOST_CURVES)
    ]
    loaded = [_loaded(rows, curves) for _, rows in lines]
    tested = all(None not in curve.test_accuracy for line in loaded for curve in line)
    column = "test_accuracy" if tested else "validation_accuracy"
    means = [_mean_curve(line, column) for line in loaded]
    if all(len(steps) < 2 for steps, _ in means):
        return None
    if not tested:
        label_y(figure, ACCURACY.replace("Test", "Validation"))
    percents = [100 * fmean(row["density"] for row in rows) for _, rows in lines]
    low = min([50.0, *filter(None, percents)])
    norm = LogNorm(low, 100, clip=True)
    for (panel, rows), (steps, values), percent in zip(lines, means, percents, strict=True):
        # A training that is evaluated once is a point, which a line without markers would not show.
        marker = "o" if len(steps) == 1 else None
        accuracies = [value.mean for value in values]
        panel.plot(steps, accuracies, color=SHADES(norm(percent)), linewidth=1.6, marker=marker)
        branch = rows[0]["branch"]
        name = branch if percent == 100 else f"{branch} at {density_text(percent / 100)}"
        record_values(panel, name, steps, values)
    reached = [stretch(value.mean) for _, values in means for value in values]
    accuracy_scale(drawn[0][0], *unstretch(limits(reached)))
    bar = color_bar(figure, norm, [panel for panel, _ in drawn], REMAINING)
    percent_ticks(bar.ax.yaxis, low)
    most = max(len(evenly_spaced(dense_and_tickets(cell), MOST_CURVES)) for _, cell in drawn) - 1
    figure.caption = (
        f"{'Test' if tested else 'Validation'} accuracy during training of the dense run and of "
        f"the tickets at {count(most, 'level')}, {seeds_text([cell for _, cell in drawn])}."
    )
    return figure


def _loaded(rows: Sequence[Record], curves: CurvesOf) -> list[Curves]:
    """Curves of the records' trainings that are not missing."""
    digests = (row["training_digest"] for row in rows)
    return [curve for curve in map_in_threads(curves, digests) if curve]


def _mean_curve(curves: Sequence[Curves], name: str) -> tuple[list[int], list[Summary]]:
    """Steps at which every seed's curve was evaluated, and accuracies (%) over seeds there.

    Args:
        name: field of `Curves`; a curve without values of it has no steps.
    """
    by_step = [dict(zip(curve.step, getattr(curve, name), strict=False)) for curve in curves]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    return steps, [summarize([100 * values[step] for values in by_step]) for step in steps]
