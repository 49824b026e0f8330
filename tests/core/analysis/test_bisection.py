"""The earliest rewind point that matches: which points to train next, and the conclusion."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_core.analysis.bisection import Finding, Response, earliest_matching
from lth_core.analysis.verdict_rule import VerdictRule

DENSE = 0.9
RULE = VerdictRule(margin=0.01)


def response(accuracy: float, seeds: int = 5) -> Response:
    """Every replicate at one accuracy; down to a point below the dense run it matches."""
    ticket = (accuracy,) * seeds
    return Response(ticket, 0.01 if accuracy > DENSE - RULE.margin else 0.99, RULE)


YES, NO = response(0.9), response(0.5)


def bisect(
    answer: Callable[[int], Response],
    points: Sequence[int],
    grid: Sequence[int] = (),
    known: Mapping[int, Response] | None = None,
) -> tuple[Finding, dict[int, Response], int]:
    """Ask until nothing is left to ask: what was found, all that is known then, rounds of asking."""
    seen, rounds = dict(known or {}), 0
    while (finding := earliest_matching(seen, points, grid)).next_points:
        assert not set(finding.next_points) & set(seen)
        assert len(set(finding.next_points)) == len(finding.next_points)
        seen |= {point: answer(point) for point in finding.next_points}
        rounds += 1
        assert rounds <= len(points) + 1
    return finding, seen, rounds


@st.composite
def thresholds(draw: st.DrawFn) -> tuple[list[int], int, list[int]]:
    """Points, how many of them do not match, and those that are known beforehand."""
    points = sorted(draw(st.sets(st.integers(0, 500), min_size=1, max_size=33)))
    return (
        points,
        draw(st.integers(0, len(points))),
        draw(st.lists(st.sampled_from(points), max_size=4)),
    )


@pytest.mark.slow
@given(thresholds(), st.booleans())
def test_first_matching_point_is_found_in_the_logarithm_of_the_points(
    case: tuple[list[int], int, list[int]], some_known: bool
) -> None:
    points, not_matching, before = case

    def answer(point: int) -> Response:
        return NO if points.index(point) < not_matching else YES

    known = {point: answer(point) for point in before} if some_known else {}
    finding, seen, rounds = bisect(answer, points, points, known)
    n, none = len(points), not_matching == len(points)
    assert finding.earliest == (None if none else points[not_matching])
    assert finding.below == (points[not_matching - 1] if not_matching else None)
    assert finding.monotone
    assert len(seen) - len(known) == rounds  # one look at a time
    assert rounds <= ceil(log2(n)) + (not_matching >= n - 1)


def test_every_threshold_of_few_points_takes_as_many_looks_as_promised() -> None:
    """The property above over all there is to try, and that the bound is not a loose one."""
    for n in range(1, 10):
        looks = []
        for not_matching in range(n + 1):
            points = list(range(0, 10 * n, 10))
            finding, _, rounds = bisect(
                lambda p, k=not_matching: YES if p >= 10 * k else NO, points
            )
            assert finding.earliest == (10 * not_matching if not_matching < n else None)
            assert rounds <= ceil(log2(n)) + (not_matching >= n - 1)
            looks.append(rounds)
        assert max(looks[: n - 1], default=0) == ceil(log2(n))


def test_points_of_other_searches_narrow_it_down() -> None:
    points = [0, 10, 20, 30, 40]
    assert earliest_matching({15: NO, 35: YES}, points, []) == Finding(35, 15, (20,), True)
    assert earliest_matching({15: NO, 20: NO, 35: YES}, points, []).next_points == (30,)
    assert earliest_matching({12: NO, 18: YES}, points, []) == Finding(18, 12, (), True)


def test_search_starts_in_the_middle_and_ends_where_no_point_matches() -> None:
    assert earliest_matching({}, [0, 10, 20, 30], []) == Finding(None, None, (10,), True)
    finding, seen, _ = bisect(lambda point: NO, [0, 10, 20, 30])
    assert finding == Finding(None, 30, (), True)
    assert list(seen) == [10, 20, 30]


# Curves that rise and fall


def test_fall_beyond_noise_asks_for_the_whole_grid() -> None:
    points, grid = list(range(0, 80, 10)), [0, 20, 40, 60]
    known = {20: response(0.8), 50: NO}
    assert earliest_matching(known, points, grid) == Finding(None, 50, (0, 40, 60), False)
    curve = {0: NO, 40: NO, 60: NO}
    finding, seen, rounds = bisect(curve.__getitem__, points, grid, known)
    assert finding == Finding(None, 60, (), False)
    assert (sorted(seen), rounds) == ([0, 20, 40, 50, 60], 1)


def test_match_that_the_grid_shows_is_the_answer_or_narrowed_down_where_all_rises_to_it() -> None:
    points, grid = list(range(0, 80, 10)), [0, 20, 40, 60]
    known = {20: response(0.8), 30: NO}
    curve = {0: NO, 40: YES, 60: NO}
    assert bisect(curve.__getitem__, points, grid, known)[0] == Finding(40, 30, (), False)
    curve = {0: YES, 40: NO, 60: NO}
    assert bisect(curve.__getitem__, points, grid, known)[0] == Finding(0, None, (), True)
    known, curve = {20: response(0.8), 50: NO}, {0: NO, 30: NO, 40: YES, 60: NO}
    finding, seen, _ = bisect(curve.__getitem__, points, grid, known)
    assert 30 in seen
    assert (finding.earliest, finding.below) == (40, 30)


def test_fall_behind_the_first_match_changes_nothing() -> None:
    """Rewinding too late fails; how early it may be is asked before that."""
    points, grid = list(range(0, 80, 10)), [0, 20, 40, 60]
    assert earliest_matching({20: YES, 50: NO}, points, grid) == Finding(20, None, (0,), True)
    assert earliest_matching({0: YES, 50: NO}, points, grid) == Finding(0, None, (), True)
    known = {0: NO, 10: YES, 20: NO, 40: NO, 60: YES}
    assert earliest_matching(known, points, grid) == Finding(10, 0, (), True)


def test_fall_counts_though_neither_point_matches() -> None:
    known = {10: response(0.8), 30: response(0.6)}
    assert earliest_matching(known, [0, 10, 20, 30], [0, 30]) == Finding(None, 30, (0,), False)


def test_slow_fall_counts_by_the_highest_point_before() -> None:
    """Each step is within the margin, both together are not."""
    known = {10: response(0.805), 20: response(0.797), 30: response(0.789)}
    assert earliest_matching(known, [0, 10, 20, 30], [0, 30]) == Finding(None, 30, (0,), False)
    del known[10]
    assert earliest_matching(known, [0, 10, 20, 30], [0, 30]).monotone


@pytest.mark.parametrize(
    "known",
    [
        {10: response(0.882), 30: response(0.878)},  # within the margin
        {10: response(0.85, seeds=4), 30: response(0.5, seeds=4)},  # four alike: p is 1/16
        {  # as far on average, but in no two replicates alike
            10: Response((0.8, 0.8, 0.8), 0.99, RULE),
            30: Response((0.8, 0.1, 0.8), 0.99, RULE),
        },
    ],
    ids=["tolerated", "few", "noisy"],
)
def test_fall_within_noise_is_none(known: dict[int, Response]) -> None:
    finding = earliest_matching(known, [0, 10, 20, 30, 40], [0, 10, 20, 30])
    assert finding == Finding(None, 30, (40,), True)


@given(st.lists(st.sampled_from([0.5, 0.7, 0.885, 0.9, 0.95]), min_size=1, max_size=20))
def test_search_of_any_curve_ends_with_the_first_matching_point_it_saw(curve: list[float]) -> None:
    points = list(range(len(curve)))
    finding, seen, _ = bisect(lambda point: response(curve[point]), points, points[::3])
    matching = [point for point in seen if seen[point].matching]
    assert finding.earliest == min(matching, default=None)
    assert finding.monotone or set(points[::3]) <= set(seen)
    if finding.monotone and finding.earliest:
        assert finding.below == finding.earliest - 1


def test_point_matches_where_the_verdict_s_p_is_below_its_threshold() -> None:
    rule = VerdictRule(confidence=0.9)
    assert [Response((0.9,), p, rule).matching for p in (0.09, 0.11)] == [True, False]
