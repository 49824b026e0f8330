import pytest

from lth_core.spec import ModelSpec
from sweeps.bench.benchmarks import BENCHMARKS
from sweeps.bench.compact import NETWORKS, bench_compact


@pytest.mark.slow
def test_smaller_network_with_half_of_the_flops_is_timed_beside_the_full_one() -> None:
    """Timed, not judged: machines of tests are shared."""
    specs = {"conv-4": ModelSpec(name="conv-4", width=0.5)}
    (bench,) = bench_compact(specs, seconds=0)
    assert bench.network == "conv-4"
    assert 0.45 < bench.flops <= 0.5
    assert bench.dense_ms > 0
    assert bench.share == bench.compact_ms / bench.dense_ms
    assert f"{1 / bench.share:.2f} times faster" in str(bench)


def test_conv_6_and_vgg_16_are_measured() -> None:
    assert NETWORKS == ("conv-6", "vgg-16")
    assert "compact" in BENCHMARKS
