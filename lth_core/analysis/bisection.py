"""The earliest matching rewind point: bisection, as a pure function of the points seen so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lth_core.analysis.verdict import SIGNIFICANT, p_greater, slack, summarize


@dataclass(frozen=True, slots=True)
class Response:
    """Replicates at one rewind point: final test accuracies of ticket and dense run, by seed.

    tolerance: accuracy below dense that still matches; None as in `lth_core.analysis.verdict`.
    """

    ticket: tuple[float, ...]
    dense: tuple[float, ...]
    tolerance: float | None = None

    @property
    def slack(self) -> float:
        """The tolerance as a number: where None is given, derived from the dense runs."""
        return slack(summarize(self.dense), self.tolerance)

    @property
    def matching(self) -> bool:
        """Whether the mean is not below the dense one by more than the tolerance."""
        return fmean(self.ticket) >= fmean(self.dense) - self.slack

    @property
    def confidence(self) -> float:
        """1 - p of a paired one-sided test of the answer that the means give."""
        floor = [accuracy - self.slack for accuracy in self.dense]
        pair = (self.ticket, floor) if self.matching else (floor, self.ticket)
        return 1 - p_greater(*pair)

    def exceeds(self, other: Response) -> bool:
        """Whether another point is worse, significantly and by more than the tolerance."""
        gap = fmean(self.ticket) - fmean(other.ticket)
        return gap > self.slack and p_greater(self.ticket, other.ticket) < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class Finding:
    """The earliest matching rewind point so far, and the points to evaluate next.

    earliest: the first evaluated point that matches, or None.
    below: the last evaluated point before it, which does not match, or None.
    next_points: points to evaluate next; empty where the finding is final.
    monotone: whether accuracy does not fall, beyond noise, before the first match.
    """

    earliest: int | None
    below: int | None
    next_points: tuple[int, ...]
    monotone: bool


def earliest_matching(
    responses: Mapping[int, Response], points: Sequence[int], grid: Sequence[int]
) -> Finding:
    """Bisect ``points`` for the first that matches.

    If all of n points from some k on match, k is found in ceil(log2 n) evaluations. It takes one
    more where k is the last point, which is assumed to match until it is evaluated. Rewinding can
    also be too late: a curve that rises and falls before any match cannot be bisected. Then all of
    ``grid`` is evaluated.

    Args:
        responses: by evaluated point.
        points: all candidate points, in rising order.
        grid: points to evaluate where bisection is not possible.

    >>> yes, no = Response((0.9, 0.9), (0.9, 0.9)), Response((0.5, 0.5), (0.9, 0.9))
    >>> earliest_matching({0: no, 20: yes}, [0, 10, 20, 30], [])
    Finding(earliest=20, below=0, next_points=(10,), monotone=True)
    """
    evaluated = sorted(responses)
    earliest = next((point for point in evaluated if responses[point].matching), None)
    before = [point for point in evaluated if earliest is None or point < earliest]
    below = before[-1] if before else None
    # Accuracy after a matching point gives no information on the points before it.
    monotone = not any(
        responses[early].exceeds(responses[late])
        for number, late in enumerate(before)
        for early in before[:number]
    )
    if not monotone:
        chosen = grid
    else:
        last = points[-1] if earliest is None else earliest
        candidates = [p for p in points if (below is None or below < p) and p <= last]
        chosen = candidates[max(len(candidates) // 2 - 1, 0) :][:1]
    next_points = tuple(point for point in chosen if point not in responses)
    return Finding(earliest, below, next_points, monotone)
