"""Latencies of networks side by side."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from lth_core import ModelSpec, Trainer
from lth_core.measures import latency as measured
from lth_core.measures.latency import ROUNDS, WARM_UP, compact_latency, device_name, latency
from lth_core.results import LevelResult


class Watched(nn.Module):
    """Appends its name, mode, batch and threads to a list that copies of it share."""

    def __init__(self, name: str, calls: list[tuple[object, ...]]) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def __deepcopy__(self, memo: object) -> "Watched":
        return Watched(self.name, self.calls).train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        state = (self.training, tuple(x.shape), torch.get_num_threads(), x.is_inference())
        self.calls.append((self.name, *state))
        return x


def test_networks_take_turns_warmed_up_in_evaluation_mode() -> None:
    calls: list[tuple[object, ...]] = []
    one, other = Watched("one", calls), Watched("other", calls)
    before = torch.get_num_threads()
    latency([one, other], (3, 4, 4), batch_size=5, threads=before + 1, seconds=0)
    rounds = WARM_UP + ROUNDS
    assert [call[0] for call in calls] == ["one", "other"] * rounds
    assert {call[1:] for call in calls} == {(False, (5, 3, 4, 4), before + 1, False)}
    assert torch.get_num_threads() == before
    assert one.training


def test_latency_is_the_median_of_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.cycle([3.0, 30.0, 1.0, 10.0, 900.0, 20.0])
    monkeypatch.setattr(measured, "_milliseconds", lambda network, x: next(times))
    monkeypatch.setattr(measured, "ROUNDS", 3)
    assert latency([nn.Flatten(), nn.Flatten()], (4,), seconds=0) == [3.0, 20.0]


def test_larger_network_takes_longer() -> None:
    large, small = (nn.Linear(8, size) for size in (100_000, 10))
    milliseconds = latency([large, small], (8,), seconds=0)
    assert milliseconds[0] > 2 * milliseconds[1] > 0


def test_latency_of_a_ticket_is_beside_that_of_the_full_network(
    search: list[LevelResult], trainer: Trainer
) -> None:
    job = search[2].results["ticket"].job
    numbers = compact_latency(trainer, job, batch_size=8, threads=1, seconds=0)
    assert numbers["latency_ms"] > 0 < numbers["dense_latency_ms"]
    assert (numbers["batch_size"], numbers["threads"]) == (8, 1)
    assert numbers["device"] == device_name(trainer.device) != ""
    wide = ModelSpec(widths=(20_000, 16))
    larger = compact_latency(trainer, job, full=wide, batch_size=8, seconds=0)
    assert larger["dense_latency_ms"] > 2 * larger["latency_ms"]


@pytest.mark.gpu
def test_latency_on_a_gpu_waits_for_it() -> None:
    large, small = (nn.Linear(4096, size) for size in (40_000, 10))
    milliseconds = latency([large, small], (4096,), device="cuda", seconds=0.1)
    assert milliseconds[0] > 2 * milliseconds[1] > 0
    assert device_name(torch.device("cuda"))
