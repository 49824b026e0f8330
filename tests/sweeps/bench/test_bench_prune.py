import pytest

from sweeps.bench import benchmarks
from sweeps.bench.benchmarks import BENCHMARKS
from sweeps.bench.prune import EARLY, LATE, PruneBench, bench_chain, bench_prune


def test_choice_pruning_and_writing_of_masks_are_timed() -> None:
    cost = bench_prune(layers=2, side=8, rounds=1)
    assert cost.weights == 2 * 8 * 8
    assert min(cost.top_k_seconds, cost.prune_seconds, cost.mask_seconds) > 0


def test_rate_of_masks_is_in_bytes_of_bool_masks() -> None:
    cost = PruneBench(25_000_000, 0.5, 0.9, mask_seconds=0.1)
    assert cost.mask_mb_per_second == pytest.approx(250)


@pytest.mark.slow
@pytest.mark.long
def test_memory_is_measured_after_each_level_of_another_process() -> None:
    found = bench_chain(levels=2)
    assert len(found) == 3
    assert min(found) > 50


def test_growth_of_a_chain_is_between_its_fifth_and_its_last_level(monkeypatch) -> None:
    monkeypatch.setattr(benchmarks, "bench_prune", lambda: PruneBench(25, 0.5, 0.9, 0.1))
    monkeypatch.setattr(benchmarks, "bench_chain", lambda: [100.0 + n for n in range(LATE + 1)])
    rows = list(BENCHMARKS["prune"]())
    assert rows[-1].measured == LATE - EARLY
    assert [row.benchmark for row in rows] == ["prune"] * 4
    assert all(row.ratio is not None for row in rows)
