"""Paired tests, with variances moderated over levels."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_core.analysis.paired import PairedTest, _inverse_trigamma, holm, paired_tests

VALUES = st.floats(-1, 1).map(lambda x: round(x, 6))


def level(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def table(draws: np.ndarray) -> list[dict[int, float]]:
    """Levels are columns."""
    return [level(*map(float, column)) for column in draws.T]


def test_p_is_that_of_the_paired_one_sided_t_test() -> None:
    """Differences .01, .02, .03, .02: mean .02, variance 2/3 of .0001, so t = 2 sqrt(6).

    With 3 degrees of freedom, p = 1/2 - (2 sqrt(2) / 9 + atan(2 sqrt(2))) / pi = 0.00813830.
    """
    (test,) = paired_tests([level(0.01, 0.02, 0.03, 0.02)])
    assert test.p_above(0) == pytest.approx(0.00813830, rel=1e-5)
    assert test.p_below(0) == pytest.approx(1 - 0.00813830, rel=1e-5)
    (moved,) = paired_tests([level(-0.04, -0.03, -0.02, -0.03)])
    assert moved.p_above(-0.05) == pytest.approx(0.00813830, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "p"),
    [((0, 0, 0), 1.0), ((0.1, 0.1, 0.1), 0.125), ((-0.1, -0.1, -0.1), 1.0), ((0.1,), 0.5)],
)
def test_without_a_deviation_the_sign_test_decides(values: tuple[float, ...], p: float) -> None:
    (test,) = paired_tests([level(*values)])
    assert test.p_above(0) == p


def test_levels_that_vary_together_have_the_freedom_of_one() -> None:
    """Equal columns say nothing more on the variance than one of them."""
    (alone,) = paired_tests([level(0.1, 0.3, 0.2)])
    for test in paired_tests([level(0.1, 0.3, 0.2)] * 20):
        assert test.freedom == pytest.approx(2)
        assert test.std == pytest.approx(alone.std)


def test_independent_levels_of_one_variance_share_it_and_keep_what_is_larger() -> None:
    draws = np.random.default_rng(0).normal(scale=0.01, size=(5, 40))
    tests = paired_tests(table(draws))
    own, found = draws.std(axis=0, ddof=1), np.array([test.std for test in tests])
    assert found[own < 0.01] == pytest.approx(0.01, rel=0.05)
    assert found[own > 0.011] == pytest.approx(own[own > 0.011])
    assert all(8 < test.freedom <= 4 * 4 for test in tests)


def test_levels_whose_variances_differ_keep_their_own() -> None:
    """Variances spread over a factor of 10,000 without an order."""
    rng = np.random.default_rng(1)
    scales = 10 ** rng.uniform(-3, -1, size=60)
    draws = rng.normal(size=(10, 60)) * scales
    tests = paired_tests(table(draws))
    own = draws.std(axis=0, ddof=1)
    large = own > np.median(own)
    assert np.array([test.std for test in tests])[large] == pytest.approx(own[large], rel=0.1)
    assert max(test.std for test in tests) > 20 * min(test.std for test in tests)
    assert all(9 <= test.freedom < 13 for test in tests)


def test_a_variance_that_grows_from_level_to_level_is_followed() -> None:
    draws = np.random.default_rng(2).normal(size=(4, 30)) * np.geomspace(0.001, 0.1, 30)
    tests = paired_tests(table(draws))
    assert tests[0].std == pytest.approx(0.001, rel=0.4)
    assert tests[-1].std == pytest.approx(0.1, rel=0.4)


def test_prior_freedom_of_drawn_variances_is_recovered() -> None:
    """Variances drawn as limma supposes: d0 s0² over a chi-squared of d0 degrees of freedom."""
    rng = np.random.default_rng(3)
    prior, levels, seeds = 6, 400, 41
    variances = prior / rng.chisquare(prior, levels)
    tests = paired_tests(table(rng.normal(size=(seeds, levels)) * np.sqrt(variances)))
    # The largest number of degrees of freedom is far away with so many seeds.
    assert tests[0].freedom - (seeds - 1) == pytest.approx(prior, rel=0.25)


@given(
    st.lists(st.lists(VALUES, min_size=4, max_size=4), min_size=1, max_size=6), st.floats(0.1, 10)
)
def test_units_and_the_order_of_seeds_do_not_matter(rows: list[list[float]], scale: float) -> None:
    levels = [level(*row) for row in rows]
    tests = paired_tests(levels)
    scaled = paired_tests([{s: scale * v for s, v in row.items()} for row in levels])
    turned = paired_tests([dict(reversed(list(row.items()))) for row in levels])
    for test, large, other in zip(tests, scaled, turned, strict=True):
        assert other.p_above(-0.1) == pytest.approx(test.p_above(-0.1), abs=1e-9)
        if test.std > 1e-9:
            assert large.p_above(-0.1 * scale) == pytest.approx(test.p_above(-0.1), abs=1e-6)
        assert test.n == 4
        assert 3 <= test.freedom <= 9 + 1e-9
        assert test.p_above(-0.1) + test.p_below(-0.1) == pytest.approx(1, abs=1e-9) or (
            test.std < 1e-9
        )


def test_levels_with_fewer_seeds_are_tested_on_theirs() -> None:
    tests = paired_tests([level(0.1, 0.2, 0.15, 0.12), {1: 0.2, 3: 0.1}, {2: 0.3}])
    assert [test.n for test in tests] == [4, 2, 1]
    assert (tests[2].mean, tests[2].p_above(0)) == (0.3, 0.5)
    assert paired_tests([]) == []


def test_inverse_of_trigamma_is_its_inverse() -> None:
    from scipy.special import polygamma

    for value in (1e-8, 1e-3, 0.5, 1.0, 20.0, 1e8):
        assert float(polygamma(1, _inverse_trigamma(value))) == pytest.approx(value, rel=1e-3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(values: list[float]) -> None:
    """p adjusted is the largest Bonferroni p of all sets of hypotheses that hold the one."""
    everyone = range(len(values))
    for i, adjusted in enumerate(holm(values)):
        sets = [s for n in everyone for s in combinations(everyone, n + 1) if i in s]
        closed = max(min(len(s) * min(values[j] for j in s), 1.0) for s in sets)
        assert adjusted == pytest.approx(closed)


def test_p_values_are_those_of_the_t_distribution_with_two_degrees() -> None:
    """F(t) = 1/2 + t / (2 sqrt(2 + t²))."""
    for t in (0.5, 1.0, 3.0):
        expected = 0.5 - t / (2 * (2 + t * t) ** 0.5)
        test = PairedTest(n=4, mean=t / 2, std=1.0, freedom=2)
        assert test.p_above(0) == pytest.approx(expected)


def test_level_of_equal_differences_has_the_sign_test_and_no_part_in_the_others() -> None:
    draws = np.random.default_rng(4).normal(scale=0.01, size=(5, 20))
    others = paired_tests(table(draws))
    for place in (0, 20):
        tests = paired_tests(table(np.insert(draws, place, 0.001, axis=1)))
        assert tests.pop(place).p_above(0) == 0.5**5
        assert tests == others
