"""Figures of a study: pure functions from records to matplotlib figures, without pyplot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from tracking.cells import Record
from tracking.figures.branches import accuracy, early_stop
from tracking.figures.drawing import CurvesOf
from tracking.figures.methods import by_method
from tracking.figures.networks import layer_density, learning_curves
from tracking.figures.overlap import overlap
from tracking.figures.travel import travel
from tracking.figures.width import width

__all__ = ["FIGURES", "Chart", "CurvesOf"]


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with its words; the caption says what is drawn and what to look for."""

    draw: Callable[[Sequence[Record], Sequence[str], CurvesOf], Figure | None]
    """None where the records have nothing of the kind."""
    title: str
    caption: str


FIGURES = {
    "methods": Chart(
        by_method,
        "Ways to a sparse network",
        "Mean final test accuracy over seeds of every way, from dense at the left to sparse at "
        "the right; the dashed line is the dense run. Colours are families: what prunes before, "
        "during or after training, or never trains. A method's dashes are other ways to retrain "
        "what it found. Intervals, where not drawn, are in the table. The accuracy axis is "
        "logarithmic in the error: 99 lies as far above 98 as 80 above 60.",
    ),
    "accuracy": Chart(
        accuracy,
        "Accuracy against density",
        "Mean final test accuracy over seeds while weights are pruned, from dense at the left to "
        "sparse at the right. Where the ticket stays with the dense run and reinit falls behind, "
        "it is the initial weights that matter, not the structure alone. Bands are 95% "
        "t-intervals, cut where they would dwarf the lines. The accuracy axis is logarithmic in "
        "the error: 99 lies as far above 98 as 80 above 60.",
    ),
    "width": Chart(
        width,
        "How wide a network must be",
        "Mean final test accuracy of the best ticket, over all densities, less that of the dense "
        "run of the same seed, against the width multiplier; one line a depth. Where a line "
        "reaches the dashed one, the best ticket is as good as the dense run. The best of several "
        "densities is a little lucky. Bands are 95% t-intervals.",
    ),
    "early_stop": Chart(
        early_stop,
        "Early-stop step against density",
        "Mean step of the lowest validation loss, counted from the start of the dense run's "
        "schedule: lower is faster. Bands are 95% t-intervals, cut where they would dwarf the "
        "lines.",
    ),
    "travel": Chart(
        travel,
        "How far weights travel",
        "Mean distance from initialization to the end of the dense run: of the weights that a "
        "ticket keeps, and of those that it prunes. Winning-ticket weights have been found to "
        "move further. With several methods, the ratio of the two: above the dashed line, kept "
        "weights move further. Bands are 95% t-intervals.",
    ),
    "overlap": Chart(
        overlap,
        "Mask overlap",
        "Weights that two tickets both keep, as a share of those that either keeps (Jaccard). "
        "Tickets of different seeds, drawn against density, lie above the dashed line where they "
        "have more in common than masks with the same layer counts have by chance. Of several "
        "methods, each pair at one level: large, the overlap at the same seed, and on the "
        "diagonal that between seeds; small below it, the chance level; both in percent.",
    ),
    "learning_curves": Chart(
        learning_curves,
        "Learning curves",
        "Mean test accuracy over seeds during training: the dense run (darkest) and the tickets "
        "of a few levels, the paler the sparser.",
    ),
    "layer_density": Chart(
        layer_density,
        "Density layer by layer",
        "Where the ticket keeps its weights: a layer above the dashed diagonal keeps a larger "
        "share than the network as a whole. A line that ends early is a layer with none left.",
    ),
}
"""The report's figures by file name, in the report's order."""
