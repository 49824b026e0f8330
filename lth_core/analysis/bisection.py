"""The earliest matching rewind point: bisection, as a pure function of the points seen so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lth_core.analysis.paired import PairedTest, paired_tests
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule


@dataclass(frozen=True, slots=True)
class Response:
    """Replicates at one rewind point.

    ticket: final test accuracies, by seed.
    gap: test of the ticket's accuracy less that of the dense run.
    matching: whether the ticket is shown to match, by the verdict on its level.
    """

    ticket: tuple[float, ...]
    gap: PairedTest
    matching: bool
    rule: VerdictRule = DEFAULT_RULE

    @property
    def confidence(self) -> float:
        """1 - p of the one-sided test that the mean is on the side of the margin where it was seen.

        Not adjusted for the levels.
        """
        bound = -self.rule.margin
        is_above = self.gap.mean > bound
        return 1 - (self.gap.p_above(bound) if is_above else self.gap.p_below(bound))

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

    >>> gap = PairedTest(n=3, mean=0.0, std=0.001, freedom=2)
    >>> yes, no = Response((0.9, 0.9), gap, True), Response((0.5, 0.5), gap, False)
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
