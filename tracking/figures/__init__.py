"""Figures of a study: pure functions from records to matplotlib figures, without pyplot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.figure import Figure

from lth_core.analysis.cells import Record
from lth_core.analysis.rewinds import STABLE_BELOW
from tracking.figures.branches import accuracy, early_stop
from tracking.figures.drawing import CurvesOf
from tracking.figures.methods import by_method
from tracking.figures.networks import layer_density, learning_curves
from tracking.figures.overlap import overlap
from tracking.figures.predictors import predictors
from tracking.figures.rewinds import rewind, rewind_travel, stability
from tracking.figures.travel import travel
from tracking.figures.width import width

__all__ = ["FIGURES", "Chart", "CurvesOf", "figures"]


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
        "reaches the dashed one, the best ticket is as good as the dense run; the dotted one, "
        "where a study names a tolerance, is what still matches. The best of several densities is "
        "a little lucky. Bands are 95% t-intervals.",
    ),
    "rewind": Chart(
        rewind,
        "Accuracy against the rewind point",
        "Mean final test accuracy over seeds of what starts from the dense run's weights at a "
        "step, a panel a density. Far to the left a ticket may start too early to match; far to "
        "the right too few steps are left to train it. Rewound to the end, it is pruned and not "
        "trained at all. The dashed line is the dense run. Bands are 95% t-intervals, cut where "
        "they would dwarf the lines. The accuracy axis is logarithmic in the error.",
    ),
    "stability": Chart(
        stability,
        "Stability against the rewind point",
        "Two copies are trained from one state under different data orders, and the error is "
        "followed on the straight line between their ends. Drawn is its highest rise above the "
        "mean of the two ends: of the dense run from the rewind point, and of the tickets rewound "
        "to it. Below the dashed line the noise of data order takes training nowhere else. Late "
        "in training there are no steps left to part in. Bands are 95% t-intervals, cut where "
        "they would dwarf the lines.",
    ),
    "predictors": Chart(
        predictors,
        "What foretells a good rewind point",
        "Spearman's rank correlation over rewind points of what is known there with the final "
        "test accuracy of the ticket rewound there, one value a seed: mean and 95% t-interval, cut "
        "where correlations end. The further from the dashed line, on whichever side, the "
        "better. Rewinding very late leaves no steps to train, so over all points accuracy rises "
        "and then falls; filled points therefore count rewind points only up to the best one, and "
        "at least three, the best being chosen on the other seeds. What rises or falls with "
        "the step alone ranks the points just as the step itself does, which costs nothing. Three "
        "points rank in six ways: seeds often agree, and an interval without width proves little.",
    ),
    "rewind_travel": Chart(
        rewind_travel,
        "How far tickets travel",
        "Mean distance of the kept weights from the rewind point, where the ticket's training "
        "starts, to its end: how much is left to learn. Bands are 95% t-intervals, cut where they "
        "would dwarf the lines.",
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


def figures(stable_below: float = STABLE_BELOW, tolerance: float | None = None) -> dict[str, Chart]:
    """The same, with another barrier that counts as stable, and what still matches; fractions."""
    return {
        **FIGURES,
        "stability": replace(
            FIGURES["stability"], draw=partial(stability, stable_below=stable_below)
        ),
        "width": replace(FIGURES["width"], draw=partial(width, tolerance=tolerance)),
    }
