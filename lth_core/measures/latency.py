"""Latency of forward passes, of several networks side by side."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TypedDict

import torch
from torch import Tensor, nn

from lth_core.jobs.recipes import Job
from lth_core.models.compact import compact
from lth_core.models.layers import evaluation_mode, load_state, made_up_examples
from lth_core.spec import ModelSpec
from lth_core.train import Trainer

BATCH_SIZE, THREADS = 64, 1
SECONDS, ROUNDS = 2.0, 10
"""Least duration of a measurement, and least number of forward passes of each network."""
WARM_UP = 3
"""Forward passes of each network before the measurement."""


class CompactLatency(TypedDict):
    """Latency of a training's smaller network and of its full one, measured together."""

    latency_ms: float
    dense_latency_ms: float
    batch_size: int
    threads: int
    device: str


def compact_latency(
    trainer: Trainer,
    job: Job,
    *,
    full: ModelSpec | None = None,
    batch_size: int = BATCH_SIZE,
    threads: int = THREADS,
    seconds: float = SECONDS,
) -> CompactLatency:
    """Latency of a trained network without the channels that do not matter, on this device.

    Args:
        trainer: it has the job's training, or trains it.
        full: the network to compare with; by default the job's own, with all channels.
        batch_size, threads, seconds: as in `latency`.

    Raises:
        SpecError: the network cannot be made smaller.
        StoreError: a frozen trainer's store lacks the training.
    """
    shape = trainer.data(job).shape
    state, mask = trainer.final(job)
    pruned = copy.deepcopy(trainer.model(job))
    load_state(pruned, state)
    dense = trainer.model(replace(job, model=full or job.model))
    smaller_ms, dense_ms = latency(
        [compact(pruned, mask, shape), dense], shape,
        batch_size=batch_size, device=trainer.device, threads=threads, seconds=seconds,
    )  # fmt: skip
    return {
        "latency_ms": smaller_ms, "dense_latency_ms": dense_ms, "batch_size": batch_size,
        "threads": threads, "device": device_name(trainer.device),
    }  # fmt: skip


def latency(
    networks: Sequence[nn.Module],
    shape: tuple[int, ...],
    *,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str = "cpu",
    threads: int = THREADS,
    seconds: float = SECONDS,
) -> list[float]:
    """Median milliseconds of a forward pass of each network, in evaluation mode, float32.

    The networks take turns, so that other work on the machine slows all of them alike. Images have
    their channels last in memory, as in training.

    Args:
        shape: shape of one example.
        threads: of the CPU; without effect on a GPU.
        seconds: duration of the measurement at least; each network runs at least `ROUNDS` times.
    """
    device = torch.device(device)
    layout = torch.channels_last if len(shape) == 3 else torch.preserve_format
    copies = [copy.deepcopy(network).eval().to(device) for network in networks]
    for network in copies:
        network.to(memory_format=layout)
    with evaluation_mode(networks[0]):
        x = made_up_examples(networks[0], batch_size, shape)
    x = x.to(device).contiguous(memory_format=layout)
    took: list[list[float]] = [[] for _ in copies]
    with torch.inference_mode(), _threads(threads):
        for network in WARM_UP * copies:
            network(x)
        start = time.perf_counter()
        while len(took[0]) < ROUNDS or time.perf_counter() - start < seconds:
            for network, milliseconds in zip(copies, took, strict=True):
                milliseconds.append(_milliseconds(network, x))
    return [median(milliseconds) for milliseconds in took]


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
def _threads(count: int) -> Iterator[None]:
    """Run the block with a number of threads of the CPU."""
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
