from itertools import pairwise
from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_core.prune import SCHEDULES

densities = st.floats(1e-6, 1)
FALLING = sorted(set(SCHEDULES) - {"constant"})


@given(st.floats(0, 1), densities)
def test_schedules_are_their_formulas(t: float, d: float) -> None:
    assert SCHEDULES["exponential"](t, d) == pytest.approx(exp(t * log(d)))
    # Zhu & Gupta 2017, equation 1, in sparsities, from 0.
    sparsity = (1 - d) + (0 - (1 - d)) * (1 - t) ** 3
    assert SCHEDULES["cubic"](t, d) == pytest.approx(1 - sparsity)
    assert SCHEDULES["linear"](t, d) == pytest.approx((1 - t) * 1 + t * d)
    assert SCHEDULES["constant"](t, d) == d


@given(st.sampled_from(FALLING), densities)
def test_density_falls_from_one_to_exactly_the_one_asked_for(name: str, d: float) -> None:
    schedule = SCHEDULES[name]
    assert schedule(0.0, d) == 1
    assert schedule(1.0, d) == pytest.approx(d, rel=1e-9)
    course = [schedule(step / 20, d) for step in range(21)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(course))


@given(st.integers(1, 999), st.integers(0, 9999), st.sampled_from(sorted(SCHEDULES)))
def test_last_change_of_any_schedule_removes_what_one_pruning_does(
    permille: int, weights: int, name: str
) -> None:
    """Rounding of the density must not tip the rounding of the count."""
    fraction = permille / 1000
    left = SCHEDULES[name](1.0, 1 - fraction)
    lost = fraction if left == 1 - fraction else 1 - left
    assert round(lost * weights) == round(fraction * weights)
