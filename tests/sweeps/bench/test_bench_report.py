import pytest

from sweeps.bench.report import MANY, bench_report


@pytest.mark.long
def test_benchmark_reports_every_record_of_its_study_with_figures_of_curves_and_masks() -> None:
    axes = {"prune.score": ["magnitude", "random"], "train.lr": [0.1], "seed": [0, 1]}
    base = {**MANY["base"], "levels": 1}
    found = bench_report({**MANY, "base": base, "axes": axes})
    assert found.records == 2 * 2 * 3
    assert found.peak_mib > 50
    for name in ("learning_curves", "overlap", "travel"):
        assert f"figures/{name}.pdf" in found.html
