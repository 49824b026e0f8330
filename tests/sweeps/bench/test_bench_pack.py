import pytest

from lth_core.spec import ModelSpec, TrainSpec
from sweeps.bench import benchmarks
from sweeps.bench.benchmarks import BENCHMARKS
from sweeps.bench.pack import SIZES, WORKLOADS, PackBench, bench_pack
from sweeps.bench.train import Workload

TINY = Workload(
    name="tiny", data="digits", model=ModelSpec(name="mlp", widths=(8,)),
    train=TrainSpec(optimizer="adam", batch_size=50), steps=2, rounds=1,
)  # fmt: skip


def test_speed_of_a_pack_is_summed_over_its_networks() -> None:
    one, three = bench_pack([(TINY, (1, 3))])
    assert (one.size, three.size) == (1, 3)
    assert one.gain == 1
    assert three.gain == pytest.approx(three.steps_per_second / one.steps_per_second)


def test_each_network_is_measured_alone_first() -> None:
    assert SIZES == (1, 3, 9, 27)
    assert all(sizes[0] == 1 for _, sizes in WORKLOADS)


def test_row_has_the_gain_and_the_speed(monkeypatch) -> None:
    found = PackBench("tiny", "digits", 3, 60.0, 2.5)
    monkeypatch.setattr(benchmarks, "bench_pack", lambda: iter([found]))
    (row,) = BENCHMARKS["pack"]()
    assert row.measured == 2.5
    assert row.to_json()["steps_per_second"] == 60
    assert "tiny in packs of 3" in str(row)
