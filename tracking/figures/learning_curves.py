"""Learning curves of the dense run and of tickets at a few levels."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lth_core.analysis.cells import cells, evenly_spaced
from lth_core.columns import Record
from lth_core.parallel import map_in_threads
from lth_core.train.training import Curves
from tracking.figures.drawing.lines import ACCURACY, REMAINING, CurvesOf
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

MOST_CURVES = 6


def learning_curves(records: Sequence[Record], axes: Sequence[str], curves: CurvesOf) -> Figure:
    """Mean test accuracy (%) against step, of the dense run and of the tickets at a few levels.

    Where some curve lacks test accuracies, the figure has validation accuracies: the steps at which
    the test examples were evaluated differ between seeds.
    """
    figure, drawn = panels(cells(records, axes), "Training step", ACCURACY)
    lines = [
        (panel, rows)
        for panel, cell in drawn
        for rows in evenly_spaced(dense_and_tickets(cell), MOST_CURVES)
    ]
    loaded = [_loaded(rows, curves) for _, rows in lines]
    tested = all(None not in curve.test_accuracy for line in loaded for curve in line)
    if not tested:
        label_y(figure, ACCURACY.replace("Test", "Validation"))
    percents = [100 * fmean(row["density"] for row in rows) for _, rows in lines]
    low = min([50.0, *filter(None, percents)])
    norm = LogNorm(low, 100, clip=True)
    reached: list[float] = []
    for (panel, _), line, percent in zip(lines, loaded, percents, strict=True):
        steps, means = _mean_curve(line, "test_accuracy" if tested else "validation_accuracy")
        # A training that is evaluated once is a point, which a line without markers would not show.
        marker = "o" if len(steps) == 1 else None
        panel.plot(steps, means, color=SHADES(norm(percent)), linewidth=1.6, marker=marker)
        reached += means
    if reached:
        accuracy_scale(drawn[0][0], *unstretch(limits(list(map(stretch, reached)))))
    if drawn:
        bar = color_bar(figure, norm, [panel for panel, _ in drawn], REMAINING)
        percent_ticks(bar.ax.yaxis, low)
    return figure


def _loaded(rows: Sequence[Record], curves: CurvesOf) -> list[Curves]:
    """Curves of the records' trainings that are not missing."""
    digests = (row["training_digest"] for row in rows)
    return [curve for curve in map_in_threads(curves, digests) if curve]


def _mean_curve(curves: Sequence[Curves], name: str) -> tuple[list[int], list[float]]:
    """Steps at which every seed's curve was evaluated, and mean accuracy (%) there.

    Args:
        name: field of `Curves`; a curve without values of it has no steps.
    """
    by_step = [dict(zip(curve.step, getattr(curve, name), strict=False)) for curve in curves]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    return steps, [100 * fmean(values[step] for values in by_step) for step in steps]
