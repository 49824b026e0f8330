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
        """The tolerance, as a number."""
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

    def falls_to(self, later: Response) -> bool:
        """Whether a later point is worse, significantly and by more than the tolerance."""
        drop = fmean(self.ticket) - fmean(later.ticket)
        return drop > self.slack and p_greater(self.ticket, later.ticket) < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class Finding:
    """The earliest matching rewind point so far, and the points to evaluate next.

    earliest: the first evaluated point that matches, or None.
    below: the last evaluated point before it, which does not match, or None.
    ask: points to evaluate next; empty where the answer is final.
    monotone: whether accuracy does not fall, beyond noise, before the first match.
    """

    earliest: int | None
    below: int | None
    ask: tuple[int, ...]
    monotone: bool


def earliest_matching(
    known: Mapping[int, Response], points: Sequence[int], grid: Sequence[int]
) -> Finding:
    """Bisect ``points`` for the first that matches.

    If all of n points from some k on match, k is found in ceil(log2 n) evaluations. It takes one
    more where k is the last point, which is assumed to match until it is evaluated. Rewinding can
    also be too late: a curve that rises and falls before any match cannot be bisected. Then all of
    ``grid`` is evaluated.

    Args:
        known: responses of the evaluated points.
        points: all candidate points, rising.
        grid: points to evaluate where bisection is not possible.

    >>> yes, no = Response((0.9, 0.9), (0.9, 0.9)), Response((0.5, 0.5), (0.9, 0.9))
    >>> earliest_matching({0: no, 20: yes}, [0, 10, 20, 30], [])
    Finding(earliest=20, below=0, ask=(10,), monotone=True)
    """
    seen = sorted(known)
    earliest = next((point for point in seen if known[point].matching), None)
    before = [point for point in seen if earliest is None or point < earliest]
    below = before[-1] if before else None
    # Accuracy after a matching point gives no information on the points before it.
    monotone = not any(
        known[early].falls_to(known[late])
        for number, late in enumerate(before)
        for early in before[:number]
    )
    if not monotone:
        ask = tuple(point for point in grid if point not in known)
    else:
        last = points[-1] if earliest is None else earliest
        answers = [p for p in points if (below is None or below < p) and p <= last]
        middle = answers[max(len(answers) // 2 - 1, 0) :][:1]
        ask = tuple(point for point in middle if point not in known)
    return Finding(earliest, below, ask, monotone)
