"""Which predictors correlate with ticket accuracy: rank correlations over rewind points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from lth_core.analysis.cells import Cell
from lth_core.analysis.rewinds import RewindPoint, rewind_points
from lth_core.analysis.summary import Summary, summarize

FEWEST_FOR_INTERVAL = 5
"""Fewest rewind points of correlations with an interval over seeds: of three or four points there
are few different correlations, and those of all seeds are often equal."""
FEWEST_POINTS = 3
"""Fewest rewind points for a rank correlation."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A column that is known at a rewind point before its ticket is trained."""

    name: str
    branch: str
    key: str
    of_level: bool = False
    """Whether it differs between levels; those of the dense run are recorded at level 0."""


PREDICTORS = (
    Predictor("the step itself", "dense", "rewind_step"),
    Predictor("dense barrier, test", "twin", "test_barrier"),
    Predictor("dense barrier, training", "twin", "train_barrier"),
    Predictor("distance to the end", "dense", "rewind_distance"),
    Predictor("cosine with the end", "dense", "rewind_cosine"),
    Predictor("sign agreement", "dense", "rewind_sign_agreement"),
    Predictor("mask overlap", "ticket", "rewind_mask_overlap", of_level=True),
    Predictor("loss", "dense", "rewind_loss"),
    Predictor("gradient norm", "dense", "rewind_gradient_norm"),
    Predictor("curvature", "dense", "rewind_curvature"),
)
"""The step itself comes first: a predictor that only rises with the step ranks no better."""

BySeed = Mapping[int, Mapping[int, float]]
"""A column's values by seed and rewind step."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Rank correlation of one predictor with ticket accuracy, in one cell at one level, in [-1, 1].

    It is Spearman's correlation with the ticket's final test accuracy over rewind points, one for
    each seed, summarized over seeds; None where no seed has one. Intervals may exceed 1. There is
    none with fewer than five points, or where all seeds are equal.
    """

    predictor: Predictor
    level: int
    to_best: Summary | None
    """Over the rewind points up to the best one."""
    over_all: Summary | None
    """Over all rewind points."""
    windows: tuple[int, int]
    """Fewest and most rewind points up to the best one, over seeds."""


def predictor_correlations(cell: Cell) -> list[Correlation]:
    """Correlations of every measured predictor, level by level, in a cell of `rewind_cells`.

    A correlation over all rewind points does not show how early one may rewind. Rewinding very late
    leaves few steps to train, so accuracy rises and then falls with the step, while most predictors
    only rise, or only fall. So there is also a correlation up to the best point.

    The best point is chosen by the other seeds (for a single seed, by itself). Chosen by the same
    seed, the last point of the window would be high by chance: for 8 points and 3 seeds,
    correlations of independent numbers with the step would be about 0.1 too high. A window has at
    least three points, because two points always have a rank correlation of 1 or -1.
    """
    points, correlations = rewind_points(cell), list[Correlation]()
    for level in cell.levels("ticket"):
        accuracy = _by_seed(points, "ticket", level, "final_test_accuracy")
        windows = {seed: window(accuracy, seed) for seed in accuracy}
        sizes = [len(steps) for steps in windows.values()]
        for predictor in PREDICTORS:
            recorded_at = level if predictor.of_level else 0
            if values := _by_seed(points, predictor.branch, recorded_at, predictor.key):
                to_best = _over_seeds(values, accuracy, windows)
                over_all, extent = _over_seeds(values, accuracy), (min(sizes), max(sizes))
                correlations.append(Correlation(predictor, level, to_best, over_all, extent))
    measured = any(correlation.predictor != PREDICTORS[0] for correlation in correlations)
    return correlations if measured else []


def window(accuracy: BySeed, seed: int) -> set[int]:
    """The rewind steps up to the one with the best mean over the other seeds, at least three."""
    others = [other for other in accuracy if other != seed] or [seed]
    steps = sorted({step for by_step in accuracy.values() for step in by_step})
    means = {
        step: fmean(values)
        for step in steps
        if (values := [accuracy[o][step] for o in others if step in accuracy[o]])
    }
    best = max(means, key=lambda step: means[step])  # the earliest of equals
    return set(steps[: max(steps.index(best) + 1, FEWEST_POINTS)])


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's correlation, in [-1, 1]; None for fewer than three pairs or a constant side.

    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    """
    if len(x) < FEWEST_POINTS or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    from scipy.stats import spearmanr

    return round(float(spearmanr(x, y).statistic), 12)


def _over_seeds(
    predictor: BySeed, accuracy: BySeed, windows: Mapping[int, set[int]] | None = None
) -> Summary | None:
    """Summary of each seed's rank correlation with accuracy, over its window or all points."""
    correlations, points = [], []
    for seed, y in accuracy.items():
        x = predictor.get(seed, {})
        common = x.keys() & y.keys()
        steps = sorted(common if windows is None else common & windows[seed])
        correlation = rank_correlation([x[step] for step in steps], [y[step] for step in steps])
        if correlation is not None:
            correlations.append(correlation)
            points.append(len(steps))
    if not correlations:
        return None
    summary = summarize(correlations)
    if min(points) < FEWEST_FOR_INTERVAL or len(set(correlations)) == 1:
        return replace(summary, low=None, high=None)
    return summary


def _by_seed(points: Sequence[RewindPoint], branch: str, level: int, key: str) -> BySeed:
    values: dict[int, dict[int, float]] = defaultdict(dict)
    for point in points:
        for record in point.cell.records:
            value = record.get(key)
            if (record["branch"], record["level"]) == (branch, level) and value is not None:
                values[record["seed"]][point.step] = value
    return values
