from itertools import count

import pytest
import torch
from torch import nn

from lth_core.models.latency import torch_threads
from lth_core.spec import ModelSpec, TrainSpec
from lth_core.train import loop
from sweeps.bench.baselines.floor import GEMM_FLOPS, Work, products, traffic, work_of
from sweeps.bench.baselines.turns import take_turns, times_faster
from sweeps.bench.benchmarks import BENCHMARKS, Measured
from sweeps.bench.train import WORKLOADS, TrainBench, Workload, bench_train

TINY = Workload(
    name="tiny", data="digits", model=ModelSpec(name="mlp", widths=(8,)),
    train=TrainSpec(optimizer="sgd", lr=0.1, batch_size=50), steps=2, rounds=1,
    limits={"fp32": 2.0},
)  # fmt: skip


def test_contenders_take_turns_after_a_turn_each_that_does_not_count() -> None:
    order, clock = [], count()
    contenders = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = take_turns(contenders, 2, clock=lambda: next(clock))
    assert order == ["a", "b"] * 3
    assert seconds == {"a": [1, 1], "b": [1, 1]}


def test_ratio_is_the_median_of_the_turns_own_ratios() -> None:
    assert times_faster([4, 6, 50], [2, 2, 10]) == 3


def test_measurement_uses_one_thread_and_gives_the_others_back(monkeypatch) -> None:
    counts = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    with torch_threads(1):
        assert counts[-1] == 1
    assert counts[-1] == 4


def test_work_counts_no_gradient_of_the_input() -> None:
    """Forward, both weights' gradients, and the second layer's input gradient."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    work = work_of(model, torch.ones(5, 4), "sgd")
    assert work.flops == 2 * 5 * (2 * (12 + 6) + 6)
    assert work.optimizer_bytes == 3 * 4 * 18
    assert work_of(model, torch.ones(5, 4), "sgd", 0.9).optimizer_bytes == 5 * 4 * 18
    assert work_of(model, torch.ones(5, 4), "adam").optimizer_bytes == 7 * 4 * 18
    assert all(p.grad is None for p in model.parameters())


def test_floor_is_the_time_of_the_products_and_of_the_optimizers_bytes() -> None:
    assert Work(flops=4e9, optimizer_bytes=1e9).seconds(8e9, 2e9) == 1.0


def test_every_measured_product_is_a_matrix_product(monkeypatch) -> None:
    from sweeps.bench.baselines import floor

    monkeypatch.setattr(floor, "SIDE", 8)
    assert GEMM_FLOPS == 2 * 1024**3
    for precision in ("fp32", "bf16"):
        for name, run in products(precision).items():
            with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
                run()
            if name == "mm":  # torch's counter does not know oneDNN's
                assert counter.get_total_flops() == 2 * 8**3


def test_traffic_counts_two_reads_and_a_write_of_each_number() -> None:
    run, moved = traffic(2**20)
    run()
    assert moved == 12 * 2**22


def test_speeds_of_both_loops_and_the_floor_are_measured_in_each_precision() -> None:
    *speeds, evaluation = bench_train([TINY])
    assert [each.precision for each in speeds] == ["fp32", "bf16"]
    for each in speeds:
        assert isinstance(each, TrainBench)
        assert min(each.ours, each.textbook, each.floor, each.gflops) > 0
        assert each.times_floor == each.floor / each.ours
        assert each.times_textbook == pytest.approx(each.ours / each.textbook)
        assert each.times_alike == pytest.approx(each.ours / each.textbook_alike)
        assert "digits, batch 50, one thread" in str(each)
    assert [each.at_least for each in speeds] == [2.0, None]
    assert speeds[0].textbook == speeds[1].textbook == speeds[0].textbook_alike
    assert evaluation.ours > 0
    assert "examples a second" in str(evaluation)
    assert not torch.is_autocast_enabled("cpu")


def test_row_has_its_limit_its_ratio_and_its_numbers() -> None:
    row = Measured("train", "times a textbook loop", 5.0, at_least=10.0, numbers={"ours": 2.0})
    assert row.to_json() == {
        "benchmark": "train", "figure": "times a textbook loop", "measured": 5.0,
        "at_least": 10.0, "ratio": 2.0, "ours": 2.0,
    }  # fmt: skip
    assert str(row).split() == [
        "train",
        "5",
        "of",
        "10",
        "at",
        "least",
        "ratio",
        "2.00",
        "times",
        "a",
        "textbook",
        "loop",
    ]
    free = Measured("train", "times a textbook loop", 5.0)
    assert free.ratio is None
    assert "ratio" not in free.to_json()
    assert "ratio" not in str(free)


def test_limits_of_the_project_are_measured() -> None:
    limits = {each.name: dict(each.limits) for each in WORKLOADS}
    assert limits["lenet-300-100"] == {"fp32": 7, "bf16": 10}
    assert limits["resnet-20"] == {"bf16": 3}
    assert "train" in BENCHMARKS


def test_turns_measure_no_evaluation(monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("evaluated")

    monkeypatch.setattr(loop, "record_evaluation", refuse)
    assert len(list(bench_train([TINY]))) == 3
