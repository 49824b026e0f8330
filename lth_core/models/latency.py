"""Latency of forward passes: of several networks side by side, and of one with fewer channels."""

from __future__ import annotations

import copy
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lth_core.errors import SpecError
from lth_core.models.channels import Channels, Kept, without_channels
from lth_core.models.layers import evaluation_mode, made_up_examples

BATCH_SIZE, THREADS = 64, 1
SECONDS, ROUNDS = 2.0, 10
"""Least duration of a measurement, and least number of forward passes of each network."""
WARM_UP = 3
"""Forward passes of each network before the measurement."""
SEARCH_SECONDS = 0.3
"""Least duration of one of the measurements of a search."""
GPU_PRODUCTS = attrgetter("cuda.matmul", "cudnn.conv", "cudnn.rnn")(torch.backends)
CPU_PRODUCTS = attrgetter("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")(torch.backends)
"""torch's settings of products and convolutions; `fp32_precision` is ieee, tf32, bf16 or none."""


class _Settings(NamedTuple):
    """Settings of products: torch's older ones, those of each kind, and cuDNN's."""

    older: Mapping[str, Any]
    precisions: Sequence[str]
    deterministic: bool
    benchmark: bool


def latency(
    networks: Sequence[nn.Module],
    shape: tuple[int, ...],
    *,
    device: torch.device | str = "cpu",
    seconds: float = SECONDS,
) -> list[float]:
    """Median milliseconds of a forward pass of each network, in evaluation mode, float32.

    The networks take turns, so that other work on the machine slows all of them alike. Images have
    their channels last in memory, as in training.

    Args:
        shape: shape of one example.
        seconds: duration of the measurement at least; each network runs at least `ROUNDS` times.
    """
    device = torch.device(device)
    layout = torch.channels_last if len(shape) == 3 else torch.preserve_format
    copies = [copy.deepcopy(network).eval().to(device) for network in networks]
    for network in copies:
        network.to(memory_format=layout)
    with evaluation_mode(networks[0]):
        x = made_up_examples(networks[0], BATCH_SIZE, shape)
    x = x.to(device).contiguous(memory_format=layout)
    took: list[list[float]] = [[] for _ in copies]
    with (
        torch.inference_mode(), torch_threads(THREADS), float32_products(tf32=False),
        on_gpu(device),
    ):  # fmt: skip
        for network in WARM_UP * copies:
            network(x)
        start = time.perf_counter()
        while len(took[0]) < ROUNDS or time.perf_counter() - start < seconds:
            for network, milliseconds in zip(copies, took, strict=True):
                milliseconds.append(_milliseconds(network, x))
    return [median(milliseconds) for milliseconds in took]


class ChannelLatency:
    """Median milliseconds of a forward pass of a network without some of its channels.

    Each structure is measured once, and has that latency from then on. So a search among structures
    ends, however much a measurement varies.

    Args:
        model: the network with all channels.
        channels: its removable channels.
        shape: shape of one example.
        known: latencies by structure; those that are measured are added.
    """

    def __init__(
        self, model: nn.Module, channels: Channels, shape: tuple[int, ...],
        known: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        self._model, self._channels, self._shape = model, channels, shape
        self.known = {} if known is None else known

    def __call__(self, kept: Kept, device: str) -> float:
        """Latency without the channels that are not kept; groups that are not named keep all.

        Args:
            device: cpu or cuda.

        Raises:
            SpecError: this process has no such device.
        """
        counts = [int(kept[name].sum()) if name in kept else group.size
                  for name, group in self._channels.items()]  # fmt: skip
        structure = " ".join([device, *map(str, counts)])
        if structure not in self.known:
            check_device(device)
            smaller = without_channels(self._model, self._channels, kept)
            (milliseconds,) = latency([smaller], self._shape, device=device, seconds=SEARCH_SECONDS)
            self.known[structure] = milliseconds
        return self.known[structure]


def check_device(device: str) -> None:
    """Check that this process can measure a budget's latency on a device, cpu or cuda.

    Raises:
        SpecError: it is a GPU, and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        rule = "is measured on a GPU, so it must be used where there is one"
        raise SpecError("prune.budget.cuda_latency_ms", rule, "no GPU")


def _milliseconds(network: nn.Module, x: Tensor) -> float:
    """Duration of one forward pass."""
    if x.device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        network(x)
        end.record()
        torch.cuda.synchronize(x.device)
        return float(start.elapsed_time(end))
    began = time.perf_counter()
    network(x)
    return 1000 * (time.perf_counter() - began)


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Run the block with float32 products in float32, or on a GPU in tf32, and cuDNN deterministic.

    The settings are the process's. Blocks may overlap, as trainings in two threads do: the latest
    open one decides, and the end of the last brings back what was set before the first.

    torch's older settings are set beside the current ones: where the two differ, reading the older
    raises an error, as in `torch.backends.cudnn.flags` of a user's network. Older settings that
    differ already stay as they are. A kind that followed `torch.backends.fp32_precision` no longer
    does afterwards.
    """
    own = [tf32]
    with _LOCK:
        if not _OPEN:
            _BEFORE[:] = [_settings()]
        _OPEN.append(own)
        _set_products(tf32)
    try:
        yield
    finally:
        with _LOCK:
            _OPEN[:] = [each for each in _OPEN if each is not own]
            if _OPEN:
                _set_products(*_OPEN[-1])
            else:
                _set(_BEFORE[0])


_LOCK = threading.Lock()
_OPEN: list[list[bool]] = []
"""Whether each open block of `float32_products` has tf32."""
_BEFORE: list[_Settings] = []
"""What was set before the open blocks."""


def _settings() -> _Settings:
    """The current settings."""
    cudnn, kinds = torch.backends.cudnn, [*GPU_PRODUCTS, *CPU_PRODUCTS]
    precisions = [kind.fp32_precision for kind in kinds]
    return _Settings(_older_settings(), precisions, cudnn.deterministic, cudnn.benchmark)


def _set_products(tf32: bool) -> None:
    wanted = {"products": "high" if tf32 else "highest", "convolutions": tf32}
    older = {name: wanted[name] for name in _BEFORE[0].older}
    on_gpu = ["tf32" if tf32 else "ieee"] * len(GPU_PRODUCTS)
    _set(_Settings(older, on_gpu + ["ieee"] * len(CPU_PRODUCTS), True, False))


def _set(settings: _Settings) -> None:
    _set_older(settings.older)
    for kind, precision in zip([*GPU_PRODUCTS, *CPU_PRODUCTS], settings.precisions, strict=True):
        kind.fp32_precision = precision
    cudnn = torch.backends.cudnn
    cudnn.deterministic, cudnn.benchmark = settings.deterministic, settings.benchmark


def _older_settings() -> dict[str, Any]:
    """Precision of matrix products, and whether cuDNN may use tf32, where torch can tell."""
    older = dict[str, Any]()
    with suppress(RuntimeError):  # it differs from the current setting
        older["products"] = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        older["convolutions"] = torch.backends.cudnn.allow_tf32
    return older


def _set_older(older: Mapping[str, Any]) -> None:
    """Set older settings; torch sets some of the current ones too."""
    if "products" in older:
        torch.set_float32_matmul_precision(older["products"])
    if "convolutions" in older:
        torch.backends.cudnn.allow_tf32 = older["convolutions"]


def on_gpu(device: torch.device) -> AbstractContextManager[Any]:
    """A block in which a GPU is torch's current one; of another device, one that does nothing."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run the block with a number of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_name(device: torch.device) -> str:
    """Name of a GPU, or of this machine's processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")  # Linux
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
