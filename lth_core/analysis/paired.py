"""Paired t-tests on each level of a cell, with variances moderated over the levels.

Three to five seeds say little on the variance at one level. As in limma (Smyth 2004, Statistical
Applications in Genetics and Molecular Biology 3:3), the variances of a cell's levels are taken as
draws from one distribution: a scaled inverse chi-squared one, of ``d0`` degrees of freedom around
``s0²``, both estimated from the levels. A variance below ``s0²`` is drawn towards it. One above it
is kept, other than in limma: a level may vary more than the others, and tests that take its
variance for chance are wrong in up to 14% of studies in place of 5% (docs/verdict.md).

Levels of one cell are not independent as genes are: they share the dense run, and each ticket
descends from the one before. This is accounted for twice, both times on the careful side. The
spread of the variances that chance would give is reduced by the mean squared correlation of the
levels, for correlated levels have similar variances by chance alone. And a test has at most the
degrees of freedom of the pooled variance, f tr(S)² / tr(S²) with the covariance S of the levels
(Satterthwaite): f for levels that vary together, at most f² for independent ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, log, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lth_core.analysis.verdict_rule import FEWEST

T = TypeVar("T")

EQUAL = 1e-12
"""Differences nearer than this are equal: rounding of sums."""
FEWEST_FOR_TREND = 4
"""Fewest levels for a trend of their variances."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Mean of paired differences, with the moderated deviation of one of them."""

    n: int
    """Number of pairs."""
    mean: float
    std: float
    """Moderated standard deviation, never below their own; 0 where all differences are equal."""
    freedom: float
    """Degrees of freedom of the deviation; 0 for a single pair."""

    def p_above(self, bound: float) -> float:
        """p of the one-sided t-test that the true mean is above a bound.

        Without a deviation the sign test is used: n gains are chance with probability 2^-n.
        """
        gain = self.mean - bound
        if self.freedom == 0 or self.std < EQUAL:
            return 0.5**self.n if gain > EQUAL else 1.0
        from scipy.special import stdtr  # scipy.stats takes a second to import

        return float(stdtr(self.freedom, -gain * sqrt(self.n) / self.std))

    def p_below(self, bound: float) -> float:
        """p of the one-sided t-test that the true mean is below a bound."""
        return PairedTest(self.n, -self.mean, self.std, self.freedom).p_above(-bound)


def paired_tests(levels: Sequence[Mapping[int, float]]) -> list[PairedTest]:
    """A test for each level, from its differences by seed; a level has one at least.

    >>> (test,) = paired_tests([{0: 0.01, 1: 0.02, 2: 0.03, 3: 0.02}])
    >>> round(test.p_above(0), 6)
    0.008138
    """
    values = [np.array(list(level.values()), np.float64) for level in levels]
    deviations = _moderated(levels, [float(np.var(v, ddof=1)) if len(v) > 1 else 0 for v in values])
    return [
        PairedTest(len(v), float(v.mean()), std, freedom)
        for v, (std, freedom) in zip(values, deviations, strict=True)
    ]


def _moderated(
    levels: Sequence[Mapping[int, float]], variances: Sequence[float]
) -> list[tuple[float, float]]:
    """Moderated deviation of each level and its degrees of freedom."""
    own = [(sqrt(variance), float(len(level) - 1))
           for level, variance in zip(levels, variances, strict=True)]  # fmt: skip
    # Equal differences, of accuracies on a grid, are no measurement of a variance.
    used = [i for i, (std, _) in enumerate(own) if std > EQUAL]
    shared = sorted(set.intersection(*(set(levels[i]) for i in used))) if used else []
    squares = np.array([variances[i] for i in used])
    if len(used) < 2 or len(shared) < 2:
        return own
    table = np.array([[levels[i][seed] for i in used] for seed in shared])
    covariance = np.cov(table, rowvar=False)
    freedoms = np.array([len(levels[i]) - 1.0 for i in used])
    prior, expected = _prior(squares, freedoms, _squared_correlation(covariance))
    covariance /= np.sqrt(np.outer(expected, expected))
    most = (len(shared) - 1) * np.trace(covariance) ** 2 / max(np.sum(covariance**2), EQUAL)
    for i, square, usual in zip(used, squares, expected, strict=True):
        freedom = own[i][1]
        weight = 1.0 if prior == inf else prior / (prior + freedom)
        moderated = max(square, weight * usual + (1 - weight) * square)
        own[i] = sqrt(moderated), max(freedom, min(prior + freedom, float(most)))
    return own


def _squared_correlation(covariance: NDArray[np.float64]) -> float:
    """Mean squared correlation of two levels; above the true one where seeds are few."""
    deviations = np.sqrt(np.maximum(np.diag(covariance), EQUAL**2))
    correlations = (covariance / np.outer(deviations, deviations)) ** 2
    count = len(correlations)
    return float((correlations.sum() - np.trace(correlations)) / (count * (count - 1)))


def _prior(
    squares: NDArray[np.float64], freedoms: NDArray[np.float64], shared: float
) -> tuple[float, NDArray[np.float64]]:
    """Degrees of freedom of the prior and its variance at each level, by the logarithms' moments.

    Args:
        squares, freedoms: sample variance and degrees of freedom of each level, in order.
        shared: mean squared correlation of two levels, in [0, 1].
    """
    from scipy.special import polygamma, psi

    logs = np.log(squares) - psi(freedoms / 2) + np.log(freedoms / 2)
    order, degree = np.arange(len(logs)), int(len(logs) >= FEWEST_FOR_TREND)
    expected = np.polyval(np.polyfit(order, logs, degree), order)
    spread = float(np.sum((logs - expected) ** 2)) / (len(logs) - 1 - degree)
    spread -= (1 - shared) * float(np.mean(polygamma(1, freedoms / 2)))
    if spread < EQUAL:
        trend = np.exp(expected)
        return inf, trend * np.average(squares / trend, weights=freedoms)
    prior = 2 * _inverse_trigamma(spread)
    return prior, np.exp(expected + psi(prior / 2) - log(prior / 2))


def _inverse_trigamma(value: float) -> float:
    """x > 0 with trigamma(x) = value > 0: Newton's method on 1 / trigamma, as limma's."""
    from scipy.special import polygamma

    if value > 1e7:
        return 1 / sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x


def shown_worse(values: Mapping[T, Mapping[int, float]], significant: float) -> set[T]:
    """Names whose values are shown to be lower than those of another name, paired by seed.

    The best by its true mean is among them with a probability of at most ``significant``: each is
    tested against every other at a share of it (Hsu 1981, comparisons with the best; Bonferroni).
    Variances are not moderated: far tails need exact ones.

    Args:
        values: by name and seed; pairs with fewer than three common seeds are not tested.

    >>> shown_worse({"a": {0: 0.9, 1: 0.91, 2: 0.9}, "b": {0: 0.5, 1: 0.5, 2: 0.51}}, 0.05)
    {'b'}
    """
    worse = set[T]()
    for (name, own), (other, others) in combinations(values.items(), 2):
        differences = {seed: own[seed] - others[seed] for seed in own if seed in others}
        if len(differences) >= FEWEST:
            (test,) = paired_tests([differences])
            share = significant / (len(values) - 1)
            worse |= {name} if test.p_below(0) < share else set()
            worse |= {other} if test.p_above(0) < share else set()
    return worse


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted by Holm (1979): together they keep the error rate of one.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [1.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min((len(values) - rank) * values[i], 1.0))
        adjusted[i] = highest
    return adjusted
