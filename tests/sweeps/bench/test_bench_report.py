import pytest

from sweeps.bench.report import MANY, MIB, SECONDS, bench_report


@pytest.mark.long
def test_benchmark_reports_every_record_of_its_study_with_figures_of_curves_and_masks() -> None:
    axes = {"prune.score": ["magnitude", "random"], "train.lr": [0.1], "seed": [0, 1]}
    base = {**MANY["base"], "levels": 1}
    found = bench_report({**MANY, "base": base, "axes": axes})
    assert found.records == 2 * 2 * 3
    assert found.peak_mib > 50
    for name in ("learning_curves", "overlap", "layer_density"):
        assert f"figures/{name}.pdf" in found.html


@pytest.mark.long
def test_five_thousand_records_are_reported_within_half_a_minute_and_one_and_a_half_gibibytes() -> (
    None
):
    """CPU time: other processes on the machine do not count."""
    found = bench_report()
    assert found.records == 5000
    assert "200 trials, 20 cells, 10 seeds" in found.html
    assert found.peak_mib < MIB
    assert found.cpu_seconds < SECONDS
