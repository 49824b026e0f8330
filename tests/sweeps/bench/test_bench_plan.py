import pytest

from sweeps.bench.plan import LARGE, MIB, bench_plan


@pytest.mark.long
def test_benchmark_lists_every_trial_of_its_study_and_says_what_that_took() -> None:
    axes = {**LARGE["axes"], "train.lr": [0.1], "rewind": ["0it"], "model.width": [1]}
    found = bench_plan({**LARGE, "axes": axes})
    assert found.trials == 10 * 10
    assert found.cpu_seconds > 0
    assert found.peak_mib > 50
    assert found.within == (found.seconds < 10 and found.peak_mib < MIB)
