"""Figures of a study: pure functions from records to matplotlib figures, without pyplot.

In a notebook, with the records and the axes of a study:

    accuracy(records, axes).savefig("accuracy.pdf")

Each function gives None where the records lack its data, or where the figure would tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lth_core.analysis.rewinds import STABLE_BELOW
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from lth_core.columns import Record
from tracking.figures.accuracy import accuracy
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.figures.early_stop import early_stop
from tracking.figures.layer_density import layer_density
from tracking.figures.learning_curves import CurvesOf, learning_curves, no_curves
from tracking.figures.methods import by_method
from tracking.figures.overlap import overlap
from tracking.figures.predictors import predictors
from tracking.figures.rewind import rewind
from tracking.figures.rewind_travel import rewind_travel
from tracking.figures.sparsest_tickets import sparsest_tickets
from tracking.figures.stability import stability
from tracking.figures.structures.cost import structures
from tracking.figures.structures.search_cost import search_cost
from tracking.figures.structures.similarity import similarity
from tracking.figures.structures.similarity_matrix import similarity_matrix
from tracking.figures.travel import travel

__all__ = [
    "FIGURES",
    "Chart",
    "CurvesOf",
    "StudyFigure",
    "accuracy",
    "by_method",
    "early_stop",
    "figures",
    "layer_density",
    "learning_curves",
    "overlap",
    "predictors",
    "rewind",
    "rewind_travel",
    "search_cost",
    "similarity",
    "similarity_matrix",
    "sparsest_tickets",
    "stability",
    "structures",
    "travel",
]


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure's function and title."""

    draw: Callable[[Sequence[Record], Sequence[str]], StudyFigure | None]
    """Figure from records and axes; None where the records lack its data, or where it would tell
    nothing."""
    title: str


FIGURES = {
    "similarity": Chart(similarity, "Similarity of structures against training"),
    "similarity_matrix": Chart(similarity_matrix, "Correlation of structures"),
    "structures": Chart(structures, "Accuracy of structures against their cost"),
    "search_cost": Chart(search_cost, "Accuracy of structures against the cost of finding them"),
    "methods": Chart(by_method, "Accuracy of all methods"),
    "accuracy": Chart(accuracy, "Accuracy against density"),
    "sparsest_tickets": Chart(sparsest_tickets, "Sparsest matching tickets"),
    "rewind": Chart(rewind, "Accuracy against the rewind point"),
    "stability": Chart(stability, "Stability against the rewind point"),
    "predictors": Chart(predictors, "Which predictors correlate with ticket accuracy"),
    "rewind_travel": Chart(rewind_travel, "Distance travelled against the rewind point"),
    "early_stop": Chart(early_stop, "Early-stop step against density"),
    "travel": Chart(travel, "Distance travelled against density"),
    "overlap": Chart(overlap, "Mask overlap"),
    "learning_curves": Chart(learning_curves, "Learning curves"),
    "layer_density": Chart(layer_density, "Density by layer"),
}
"""The report's figures by file name, in the report's order."""


def figures(
    curves: CurvesOf = no_curves,
    stable_below: float = STABLE_BELOW,
    rule: VerdictRule = DEFAULT_RULE,
) -> dict[str, Chart]:
    """`FIGURES` with the study's own curves and thresholds.

    Args:
        curves: from a record's `training_digest` to its learning curves.
        stable_below: barrier, in error as a fraction, below which training is stable.
        rule: margin, confidence and adjustment of the verdicts.
    """
    own: dict[str, Any] = {
        "learning_curves": partial(learning_curves, curves=curves),
        "stability": partial(stability, stable_below=stable_below),
        "accuracy": partial(accuracy, rule=rule),
        "methods": partial(by_method, rule=rule),
        "rewind": partial(rewind, rule=rule),
        "sparsest_tickets": partial(sparsest_tickets, rule=rule),
    }
    return FIGURES | {name: replace(FIGURES[name], draw=draw) for name, draw in own.items()}
