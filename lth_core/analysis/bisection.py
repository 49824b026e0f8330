"""The earliest matching rewind point: bisection, as a pure function of the points seen so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lth_core.analysis.paired import paired_tests
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule


@dataclass(frozen=True, slots=True)
class Response:
    """Replicates at one rewind point.

    ticket: final test accuracies, by seed.
    p_matching: adjusted p, by the verdict on its level, of the ticket being less than the margin
        below dense.
    """

    ticket: tuple[float, ...]
    p_matching: float
    rule: VerdictRule = DEFAULT_RULE

    @property
    def matching(self) -> bool:
        """Whether the ticket is shown to match, as the verdict says."""
        return self.p_matching < self.rule.significant

    def exceeds(self, other: Response) -> bool:
        """Whether another point is worse, significantly and by more than the margin."""
        pairs = zip(self.ticket, other.ticket, strict=True)
        (test,) = paired_tests([{seed: a - b for seed, (a, b) in enumerate(pairs)}])
        return test.mean > self.rule.margin and test.p_above(0) < self.rule.significant


@dataclass(frozen=True, slots=True)
class Finding:
    """The earliest matching rewind point so far, and the points to evaluate next.

    earliest: the first evaluated point that is shown to match, or None.
    below: the last evaluated point before it, or None.
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
    """Bisect ``points`` for the first that is shown to match.

    If all of n points from some k on match, k is found in ceil(log2 n) evaluations. It takes one
    more where k is the last point, which is assumed to match until it is evaluated. Rewinding can
    also be too late: a curve that rises and falls before any match cannot be bisected. Then all of
    ``grid`` is evaluated.

    Args:
        responses: by evaluated point.
        points: all candidate points, in rising order.
        grid: points to evaluate where bisection is not possible.

    >>> yes, no = Response((0.9, 0.9), p_matching=0.01), Response((0.5, 0.5), p_matching=1.0)
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
        candidates = candidates_between(points, below, earliest)
        chosen = candidates[_middle(len(candidates)) :][:1]
    next_points = tuple(point for point in chosen if point not in responses)
    return Finding(earliest, below, next_points, monotone)


def candidates_between(points: Sequence[int], below: int | None, earliest: int | None) -> list[int]:
    """Points that may be the earliest matching one; the last is evaluated, or assumed to match."""
    last = points[-1] if earliest is None else earliest
    return [point for point in points if (below is None or below < point) and point <= last]


def most_evaluations(candidates: int, is_last_evaluated: bool) -> int:
    """Largest number of evaluations that bisection of candidates takes, if they are monotone.

    >>> most_evaluations(8, False), most_evaluations(8, True), most_evaluations(1, True)
    (4, 3, 0)
    """
    if candidates == 0 or (candidates == 1 and is_last_evaluated):
        return 0
    first = _middle(candidates) + 1
    matching = most_evaluations(first, True)
    return 1 + max(matching, most_evaluations(candidates - first, is_last_evaluated))


def _middle(candidates: int) -> int:
    """Index of the candidate to evaluate."""
    return max(candidates // 2 - 1, 0)
