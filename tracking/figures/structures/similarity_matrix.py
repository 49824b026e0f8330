"""Correlation of every two structures of a method, over rewind points and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil, floor, nan
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lth_core.analysis.groups import methods
from lth_core.analysis.structures import Similarity, similarities
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.panels import INK, MOST_PANELS, SHADES, Panel, color_bar, plain
from tracking.figures.drawing.study_figure import StudyFigure, Value

CORRELATION = "Correlation of the shares of channels kept, over layers"
MOST_SEEDS = 40
"""Largest number of structures whose seeds and accuracies are written beside the matrix."""


def similarity_matrix(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Heat map a method and level; None where `similarities` has none."""
    found = similarities(records, axes)[:MOST_PANELS]
    if not found:
        return None
    columns = min(len(found), 2)
    rows = ceil(len(found) / columns)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = StudyFigure((4.95 * columns + 0.9, 4.6 * rows + 0.4), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for spare in grid[len(found) :]:
        spare.remove()
    panels, norm = list(grid[: len(found)]), Normalize(_lowest(found), 1)
    several = len({each.level for each in found}) > 1
    for panel, each in zip(panels, found, strict=True):
        _draw(panel, each, norm, f", level {each.level}" if several else "")
        _record(figure, panel, each)
    color_bar(figure, norm, panels, CORRELATION)
    figure.caption = (
        "Correlation of every two structures, in blocks by the training before the pruning, and "
        "within a block by seed. Grey: a structure with equal shares in all layers has none."
    )
    return figure


def _record(figure: StudyFigure, panel: Panel, each: Similarity) -> None:
    """Add the correlations on and below the diagonal to the figure's values."""
    panel.set_label(panel.get_title(loc="left"))
    names = [f"{structure.point} seed {structure.seed}" for structure in each.structures]
    for row, correlations in enumerate(each.matrix):
        for column, value in enumerate(correlations[: row + 1]):
            if value is not None:
                found = Summary(0, value, None, None, None)
                drawn = Value(panel, names[row], names[column], found, (column, row))
                figure.values.append(drawn)


def _lowest(found: Sequence[Similarity]) -> float:
    """Lower end of the colours: a tenth, at or below all correlations and 0."""
    known = [value for each in found for row in each.matrix for value in row if value is not None]
    return floor(10 * min([*known, 0.0])) / 10


def _draw(panel: Panel, each: Similarity, norm: Normalize, ending: str) -> None:
    matrix = np.array([[nan if v is None else v for v in row] for row in each.matrix])
    n = len(matrix)
    panel.set_facecolor("#f2f2f2")
    panel.imshow(matrix, cmap=SHADES, norm=norm, interpolation="none")
    name = (each.cell.label or methods(each.cell.records)[0]) + ending
    panel.set_title(plain(name), loc="left", color=INK, fontsize=10)
    panel.spines[:].set_visible(False)
    _name_sides(panel, each, seeds=n <= MOST_SEEDS)
    if n <= MOST_SEEDS:
        _write_accuracies(panel, each)


def _name_sides(panel: Panel, each: Similarity, seeds: bool) -> None:
    """Mark the rewind points along both sides, with lines between them, and the seeds."""
    places, start = dict[str, float](), 0
    for name, group in groupby(each.structures, key=lambda structure: structure.point):
        end = start + len(list(group))
        places[name] = (start + end - 1) / 2
        if start:
            panel.axhline(start - 0.5, color="white", linewidth=2)
            panel.axvline(start - 0.5, color="white", linewidth=2)
        start = end
    names = [plain(name) for name in places]
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_ticks(list(places.values()), names)
        axis.set_tick_params(length=0, pad=14 if seeds else 4, labelsize=10, labelcolor=INK)
        if seeds:
            axis.remove_overlapping_locs = False  # a seed in the middle of its rewind point
            axis.set_ticks(range(start), [str(s.seed) for s in each.structures], minor=True)
            axis.set_tick_params(
                which="minor", length=0, pad=2, labelsize=7, labelcolor=INK, bottom=True, left=True
            )


def _write_accuracies(panel: Panel, each: Similarity) -> None:
    """Write the accuracy of each structure, trained from scratch, at the right of its row."""
    if all(structure.accuracy is None for structure in each.structures):
        return
    right = len(each.structures) - 0.5
    style: dict[str, Any] = {"color": INK, "fontsize": 8}
    panel.text(right + 0.25, -0.6, "from scratch\n%", va="bottom", **style)
    for row, structure in enumerate(each.structures):
        if structure.accuracy is not None:
            accuracy = f"{100 * structure.accuracy:.1f}"
            panel.text(right + 0.25, row, accuracy, va="center", **style)
