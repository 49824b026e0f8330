"""Mean, deviation and interval of a column over replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import fsum, sqrt
from statistics import fmean


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean over n replicates; for two or more, deviation and 95% interval (Student's t)."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


def summarize(values: Sequence[float]) -> Summary:
    """The summary of at least one value.

    >>> summarize([0.96, 0.98])
    Summary(n=2, mean=0.97, std=0.014142135623730963, low=0.8429379526...)
    """
    mean, n = fmean(values), len(values)
    if n < 2:
        return Summary(n, mean, None, None, None)
    # From the first value, so that the deviation of equal values is exactly 0. `statistics.stdev`
    # computes with fractions, and takes most of a verdict's time.
    shifted = [value - values[0] for value in values]
    centre = fsum(shifted) / n
    std = sqrt(fsum((value - centre) ** 2 for value in shifted) / (n - 1))
    half = t_975(n - 1) * std / sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


@cache  # a report needs few distinct values, thousands of times
def t_975(freedom: int) -> float:
    """97.5% quantile of Student's t."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, 0.975))
