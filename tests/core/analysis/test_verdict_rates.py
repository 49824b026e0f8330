"""How often a verdict is wrong, in simulated studies of 20 levels."""

from math import sqrt

import pytest
from verdict_rates import (
    FALSE_MATCHING,
    FALSE_WINNING,
    NOISES,
    SEEDS,
    false_after_a_stop,
    false_at_uneven_levels,
    false_rates,
    power,
)


def check(noise: str, seeds: int, studies: int, deviations: float, when: str = "after") -> None:
    """The rates are below their bounds, but for the chance of so few studies."""
    found = false_rates(NOISES[noise], seeds, studies, when)
    for rate, most in zip(found, (FALSE_MATCHING, FALSE_WINNING), strict=True):
        assert rate <= most + deviations * sqrt(most * (1 - most) / studies)


@pytest.mark.slow
@pytest.mark.parametrize("noise", list(NOISES)[:1])
def test_verdicts_are_seldom_wrong(noise: str) -> None:
    check(noise, seeds=3, studies=150, deviations=2)


@pytest.mark.long
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("noise", NOISES)
def test_verdicts_are_wrong_no_more_often_than_allowed(noise: str, seeds: int) -> None:
    check(noise, seeds, studies=250, deviations=1)


@pytest.mark.slow
@pytest.mark.parametrize("patience", [1, 2])
def test_verdicts_are_as_seldom_wrong_where_a_stop_rule_ends_bad_seeds(patience: int) -> None:
    studies = 150
    most = FALSE_MATCHING + 2 * sqrt(FALSE_MATCHING * (1 - FALSE_MATCHING) / studies)
    assert false_after_a_stop(seeds=10, studies=studies, patience=patience) <= most


@pytest.mark.slow
def test_a_level_that_varies_more_than_the_others_seldom_matches_falsely() -> None:
    """With its variance drawn to that of the others it would in 14% of studies."""
    assert false_at_uneven_levels("one level of 3 times the deviation", 10, 150, 0.001) <= 0.09


@pytest.mark.long
@pytest.mark.parametrize("noise", ["normal, correlated levels", "binomial, independent levels"])
def test_verdicts_on_tickets_that_are_not_trained_are_as_seldom_wrong(noise: str) -> None:
    check(noise, seeds=5, studies=250, deviations=1, when="never")


@pytest.mark.slow
@pytest.mark.long
def test_verdicts_find_what_is_there() -> None:
    """So that a rule that never says anything does not pass."""
    for noise, seeds, matching, winning in [
        ("normal, independent levels", 3, 0.6, 0.9),
        ("normal, correlated levels", 5, 0.6, 0.9),
        ("binomial, independent levels", 10, 0.2, 0.9),
    ]:
        found = power(NOISES[noise], seeds, studies=60)
        assert found[0] > matching
        assert found[1] > winning
