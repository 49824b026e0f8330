"""Figures of a study: pure functions from records to matplotlib figures, without pyplot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.figure import Figure

from lth_core.analysis.rewinds import STABLE_BELOW
from lth_core.analysis.verdict_rule import DEFAULT_RULE
from lth_core.columns import Record
from tracking.figures.accuracy import accuracy
from tracking.figures.drawing.lines import CurvesOf
from tracking.figures.early_stop import early_stop
from tracking.figures.layer_density import layer_density
from tracking.figures.learning_curves import learning_curves
from tracking.figures.methods import by_method
from tracking.figures.overlap import overlap
from tracking.figures.predictors import predictors
from tracking.figures.rewind import rewind
from tracking.figures.rewind_travel import rewind_travel
from tracking.figures.stability import stability
from tracking.figures.structures.cost import structures
from tracking.figures.structures.search_cost import search_cost
from tracking.figures.structures.similarity import similarity
from tracking.figures.structures.similarity_matrix import similarity_matrix
from tracking.figures.travel import travel
from tracking.figures.width import width

__all__ = ["FIGURES", "Chart", "CurvesOf", "figures"]


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure's function, title and caption; the caption says what is drawn and how to read it."""

    draw: Callable[[Sequence[Record], Sequence[str], CurvesOf], Figure | None]
    """Figure from records, axes and curves; None where the records lack its data."""
    title: str
    caption: str


FIGURES = {
    "similarity": Chart(
        similarity,
        "Similarity of structures against training",
        "Do seeds find the same structure? A structure is the share of channels that each layer "
        "keeps; drawn is the Pearson correlation over layers between the structures of two seeds, "
        "mean over all pairs, against the training before the pruning. If training narrows the "
        "structures, the lines rise. Bars are 95% intervals over seeds: pairs share seeds, so the "
        "jackknife leaves out one seed with all of its pairs at a time. They are cut at -1 and 1, "
        "and wide ones below too.",
    ),
    "similarity_matrix": Chart(
        similarity_matrix,
        "Correlation of structures",
        "Pearson correlation, over layers, of the shares of channels that two structures keep; one "
        "square a pair, one map a method. The structures are in blocks by the training before the "
        "pruning, and within a block by seed. Dark blocks on the diagonal: seeds find alike "
        "structures after that training. Dark blocks elsewhere: the structure is the same after "
        "less training. Grey: a structure with equal shares in all layers has no correlation. At "
        "the right: test accuracy of each structure, trained from fresh weights (scratch_e).",
    ),
    "structures": Chart(
        structures,
        "Accuracy of structures against their cost",
        "Mean final test accuracy over seeds against FLOPs, parameters and, where it was measured, "
        "latency, as shares of the dense network's. Colours are methods, in the hues of their "
        "families; shapes are ways to train the structure. Upper left is better. Where all "
        "structures have about the same cost, their budget, methods are side by side instead. "
        "Dashed lines are dense runs. Bars are 95% t-intervals. Accuracies below half of the "
        "median are numbers at the lower edge. The accuracy axis is logarithmic in the error.",
    ),
    "search_cost": Chart(
        search_cost,
        "Accuracy of structures against the cost of finding them",
        "Mean final test accuracy over seeds against the FLOPs of finding the structure, over "
        "those of training the dense network; at 0 the search needs no training and no examples. "
        "Methods that train, prune and fine-tune lie at 1, the dashed line, or beyond. Upper left "
        "is better. The training of the structure itself is not counted. Methods of about one cost "
        "are drawn side by side; accuracies below half of the median are numbers at the lower "
        "edge.",
    ),
    "methods": Chart(
        by_method,
        "Accuracy of all methods",
        "Mean final test accuracy over seeds of each method, against density from dense at the "
        "left to sparse at the right. The dashed line is the dense run. Colours are families: "
        "methods that prune before, during or after training, or that train no weights. Dashed "
        "lines are other ways to retrain the mask that a method found. With many methods intervals "
        "are left out; the table has them. The accuracy axis is logarithmic in the error: 99 lies "
        "as far above 98 as 80 above 60.",
    ),
    "accuracy": Chart(
        accuracy,
        "Accuracy against density",
        "Mean final test accuracy over seeds, against density from dense at the left to sparse at "
        "the right. Where the ticket stays near the dense run and reinit falls below it, the "
        "initial weights matter, not only the structure. Bands are 95% t-intervals; wide ones are "
        "cut. The accuracy axis is logarithmic in the error: 99 lies as far above 98 as 80 above "
        "60.",
    ),
    "width": Chart(
        width,
        "Best ticket against network width",
        "Mean final test accuracy of the best ticket over all densities, less that of the dense "
        "run of the same seed, against the width multiplier; one line a depth. On the dashed line "
        "the best ticket is as good as the dense run. The dotted line is the "
        "margin: the lowest difference that still matches. Choosing the best of several "
        "densities raises the difference a little by chance. Bands are 95% t-intervals.",
    ),
    "rewind": Chart(
        rewind,
        "Accuracy against the rewind point",
        "Mean final test accuracy over seeds of networks that start from the dense run's weights "
        "at a step, one panel a density. At the left a ticket may start too early to match. At "
        "the right too few steps are left to train it; rewound to the last step it is pruned and "
        "not trained. The dashed line is the dense run. Bands are 95% t-intervals; wide ones are "
        "cut. The accuracy axis is logarithmic in the error.",
    ),
    "stability": Chart(
        stability,
        "Stability against the rewind point",
        "Two copies are trained from one state under different data orders, and the error is "
        "measured on the straight line between their final weights. The barrier is its highest "
        "rise above the mean of the two ends; shown for the dense run from the rewind point and "
        "for the tickets rewound to it. Below the dashed line training is stable: data order does "
        "not change its outcome. Late rewind points leave few steps in which copies can differ. "
        "Bands are 95% t-intervals; wide ones are cut.",
    ),
    "predictors": Chart(
        predictors,
        "Which predictors correlate with ticket accuracy",
        "Spearman's rank correlation over rewind points, between a number that is known at the "
        "rewind point and the final test accuracy of the ticket rewound there, one value a seed: "
        "mean and 95% t-interval, cut at -1 and 1. A predictor is better the further it is from "
        "the dashed line, on either side. Late rewind points leave no steps to train, so over all "
        "points accuracy rises and then falls. Filled points therefore count only rewind points "
        "up to the best one, which is chosen on the other seeds, and at least three. A number "
        "that rises or falls with the step ranks the points as the step itself does, which costs "
        "nothing to know. Three points have only six rank orders: seeds often agree, so an "
        "interval without width is weak evidence.",
    ),
    "rewind_travel": Chart(
        rewind_travel,
        "Distance travelled against the rewind point",
        "Mean distance of the kept weights between the rewind point, where the ticket's training "
        "starts, and its end. Bands are 95% t-intervals; wide ones are cut.",
    ),
    "early_stop": Chart(
        early_stop,
        "Early-stop step against density",
        "Mean step of the lowest validation loss, counted from the start of the run's schedule, "
        "which for a rewound ticket is the dense run's, or starts anew at the rewind point "
        "(restart_schedule); lower is faster. Bands are 95% t-intervals; wide ones are cut.",
    ),
    "travel": Chart(
        travel,
        "Distance travelled against density",
        "Mean distance of weights between initialization and the end of the dense run: of those "
        "that a ticket keeps and of those that it prunes. Published studies report that the kept "
        "weights move further. With several methods the ratio of the two is drawn; above the "
        "dashed line the kept weights move further. Bands are 95% t-intervals.",
    ),
    "overlap": Chart(
        overlap,
        "Mask overlap",
        "Weights that both of two tickets keep, as a share of those that either keeps (Jaccard). "
        "With one method: tickets of different seeds, against density; above the dashed line they "
        "overlap more than random masks with the same layer counts. With several methods: each "
        "pair at one level. The large number is the overlap at the same seed, on the diagonal the "
        "overlap between seeds; the small number is the chance level; both in percent.",
    ),
    "learning_curves": Chart(
        learning_curves,
        "Learning curves",
        "Mean test accuracy over seeds during training, of the dense run (darkest) and of the "
        "tickets of a few levels; the sparser, the paler. Validation accuracy where the test "
        "examples were evaluated at the best steps alone.",
    ),
    "layer_density": Chart(
        layer_density,
        "Density by layer",
        "Density of each layer of the ticket, against density. A layer above the dashed diagonal "
        "keeps a larger share than the whole network. A line ends where its layer has no weights "
        "left.",
    ),
}
"""The report's figures by file name, in the report's order."""


def figures(
    stable_below: float = STABLE_BELOW, margin: float = DEFAULT_RULE.margin
) -> dict[str, Chart]:
    """`FIGURES` with the study's own thresholds.

    Args:
        stable_below: barrier, in error as a fraction, below which training is stable.
        margin: accuracy below dense, as a fraction, that still matches.
    """
    return {
        **FIGURES,
        "stability": replace(
            FIGURES["stability"], draw=partial(stability, stable_below=stable_below)
        ),
        "width": replace(FIGURES["width"], draw=partial(width, margin=margin)),
    }
