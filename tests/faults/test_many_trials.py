"""Hundreds of trials that take no time to train: what is left is what a trial costs."""

import pytest

from sweeps.bench.sweep import FILES, bench_short

pytestmark = pytest.mark.ray


def test_trials_of_one_step_cost_little_of_the_drivers_memory_and_few_files() -> None:
    cost = bench_short(200)
    assert cost.kib is not None
    assert cost.kib < 150
    content = "a training's weights, mask, entry and measures, and the trial's records"
    assert 5 <= cost.files <= FILES, content
