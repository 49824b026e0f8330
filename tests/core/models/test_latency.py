"""Latencies of networks side by side."""

import itertools
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lth_core.errors import SpecError
from lth_core.models import latency as measured
from lth_core.models.channels import channels_of
from lth_core.models.latency import (
    ROUNDS,
    SEARCH_SECONDS,
    WARM_UP,
    ChannelLatency,
    device_name,
    float32_products,
    latency,
)
from lth_core.train.precision import arithmetic


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


def test_networks_take_turns_warmed_up_in_evaluation_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    one, other = Watched("one", calls), Watched("other", calls)
    before = torch.get_num_threads()
    monkeypatch.setattr(measured, "THREADS", before + 1)
    latency([one, other], (3, 4, 4), seconds=0)
    rounds = WARM_UP + ROUNDS
    assert [call[0] for call in calls] == ["one", "other"] * rounds
    assert {call[1:] for call in calls} == {(False, (64, 3, 4, 4), before + 1, False)}
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


def channel_latency() -> tuple[nn.Module, ChannelLatency]:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    return model, ChannelLatency(model, channels_of(model, (8,)), (8,))


def test_latency_is_that_of_the_network_without_the_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, seconds = list[list[int]](), list[float]()

    def fake(networks: list[nn.Module], shape: tuple[int, ...], **options: Any) -> list[float]:
        seconds.append(options["seconds"])
        sizes.append([p.numel() for p in networks[0].parameters()])
        return [float(len(sizes))]

    monkeypatch.setattr(measured, "latency", fake)
    model, latency_of = channel_latency()
    two = torch.tensor([True, False, False, True, False, False])
    assert latency_of({"0.weight": two}, "cpu") == 1
    assert sizes == [[8 * 2, 2, 2 * 4, 4, 4 * 3, 3]]
    assert latency_of({}, "cpu") == 2
    assert sizes[1] == [p.numel() for p in model.parameters()]
    # Other channels in the same numbers are measured no second time, in this or another search.
    assert latency_of({"0.weight": two.flip(0)}, "cpu") == 1
    again = ChannelLatency(model, channels_of(model, (8,)), (8,), latency_of.known)
    assert again({"0.weight": two.flip(0)}, "cpu") == 1
    assert latency_of({"2.weight": torch.tensor([True, True, False, False])}, "cpu") == 3
    assert seconds == [SEARCH_SECONDS] * 3


def test_latency_on_a_gpu_that_is_absent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, latency_of = channel_latency()
    with pytest.raises(SpecError, match=r"prune\.budget\.cuda_latency_ms: .*, but got 'no GPU'"):
        latency_of({}, "cuda")


@pytest.mark.gpu
def test_latency_on_a_gpu_waits_for_it() -> None:
    large, small = (nn.Linear(4096, size) for size in (40_000, 10))
    milliseconds = latency([large, small], (4096,), device="cuda", seconds=0.1)
    assert milliseconds[0] > 2 * milliseconds[1] > 0
    assert device_name(torch.device("cuda"))


def test_latency_is_of_float32_whatever_the_process_computes_with() -> None:
    seen = set[tuple[bool, ...]]()

    class Watching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
            seen.add((matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark))
            return super().forward(x)

    latency([Watching(3, 2)], (3,), seconds=0)
    with arithmetic("tf32", torch.device("cpu")):
        latency([Watching(3, 2)], (3,), seconds=0)
        assert torch.backends.cudnn.allow_tf32
    assert seen == {(False, False, True, False)}


def precisions() -> list[str]:
    return [kind.fp32_precision for kind in measured.GPU_PRODUCTS + measured.CPU_PRODUCTS]


@pytest.mark.parametrize("setting", ["cuda.matmul=tf32", "cudnn.conv=ieee", "mkldnn.matmul=bf16"])
def test_products_are_of_float32_beside_torchs_current_settings(setting: str) -> None:
    """torch raises an error where an older setting is read that differs from the current one."""
    name, _, precision = setting.partition("=")
    kind = attrgetter(name)(torch.backends)
    older = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    default = kind.fp32_precision
    kind.fp32_precision = precision
    try:
        before = precisions()
        with float32_products(tf32=False):
            assert set(precisions()) == {"ieee"}
        assert precisions() == before
    finally:
        kind.fp32_precision = default
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == older


@pytest.mark.parametrize("older", ["high", "medium"])
def test_older_settings_are_put_back(older: str) -> None:
    torch.set_float32_matmul_precision(older)
    try:
        before = precisions()
        with float32_products(tf32=True):
            assert precisions() == ["tf32"] * 3 + ["ieee"] * 3
            with float32_products(tf32=False), torch.backends.cudnn.flags(enabled=False):
                pass  # `flags` reads the older settings
            assert torch.backends.cudnn.allow_tf32
        assert precisions() == before
        assert torch.get_float32_matmul_precision() == older
    finally:
        torch.set_float32_matmul_precision("highest")


def test_overlapping_blocks_bring_back_what_was_set_before_the_first() -> None:
    """As trainings do in two threads, or in turn."""
    torch.set_float32_matmul_precision("medium")
    try:
        before = precisions()
        first, second = float32_products(tf32=False), float32_products(tf32=False)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(precisions()) == {"ieee"}, "the second block is open"
        second.__exit__(None, None, None)
        assert (precisions(), torch.get_float32_matmul_precision()) == (before, "medium")
    finally:
        torch.set_float32_matmul_precision("highest")
