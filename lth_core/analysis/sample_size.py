"""Number of seeds with which a test would probably succeed."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from math import floor, log2, sqrt

from lth_core.analysis.paired import EQUAL, PairedTest
from lth_core.analysis.verdict_rule import VerdictRule

POWER = 0.8
"""Probability with which the number of seeds is enough."""
MOST_SEEDS = 1000
"""Largest number of seeds that is named."""


def seeds_to_decide(gap: PairedTest, rule: VerdictRule, tests: int) -> int:
    """Fewest seeds, more than there are, with which a test of the margin would succeed in 80% of
    studies; over `MOST_SEEDS` where no number up to it is enough.

    Means and deviations are taken as they were seen, and the deviation as not moderated.

    Args:
        gap: accuracy of the ticket less that of dense.
        tests: number of tests among which the share of errors is divided.
    """
    distance, significant = abs(gap.mean + rule.margin), rule.significant / tests
    fewest = gap.n + 1
    if gap.std < EQUAL:  # the sign test, which takes at least so many
        fewest = max(fewest, floor(-log2(significant)) + 1)

    def decides(n: int) -> bool:
        return distance > 0 and distance * sqrt(n) >= _quantiles(n - 1, significant) * gap.std

    return fewest + bisect_left(range(fewest, MOST_SEEDS + 1), True, key=decides)


@cache
def _quantiles(freedom: int, significant: float) -> float:
    """Distance, in standard errors, at which a test succeeds in 80% of studies."""
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, 1 - significant) + stdtrit(freedom, POWER))
