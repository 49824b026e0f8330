"""Arithmetic and determinism during a training run."""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import prod

import torch
from torch import nn

from lth_core.models.latency import float32_products, on_gpu, torch_threads
from lth_core.models.positions import shapes_and_positions
from lth_core.spec import Precision
from lth_core.train.layers.linear import onednn_layers
from lth_core.train.layers.sparse import sparse_layers

(_SMALLEST,) = struct.unpack("<d", bytes([1, 0, 0, 0, 0, 0, 0, 0]))
"""Smallest positive float64, from its bits: a thread that flushes may parse 5e-324 as 0."""
_ELEMENTS_A_THREAD = 32_768
"""torch divides an elementwise operation between threads in pieces of at least this many elements
(at::internal::GRAIN_SIZE)."""


LEAST_PRODUCTS = 200_000_000
"""Multiplications of a step's forward pass from which a training uses all of torch's threads."""


def threads_for(
    model: nn.Module, shape: tuple[int, ...], batch_size: int
) -> AbstractContextManager[None]:
    """Use one of torch's threads in a block that trains a small network on a CPU, else all.

    Operations of a small network take less time than threads need to share them: beside other work
    on the machine two threads take ten times as long as one (docs/scale.md).

    Args:
        shape: shape of one example.
    """
    threads = torch.get_num_threads()
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if threads > 1 and on_cpu:
        layers = shapes_and_positions(model, shape).values()
        products = batch_size * sum(prod(weights) * positions for weights, positions in layers)
        threads = threads if products >= LEAST_PRODUCTS else 1
    return torch_threads(threads)


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute forward and backward passes in ``precision``, with cuDNN deterministic.

    On a CPU tf32 is fp32. A GPU is torch's current one: streams and draws are of that.
    """
    bf16 = precision == "bf16"
    with (
        on_gpu(device),
        float32_products(tf32=precision == "tf32"),
        # No cache: torch would reuse the bf16 copy of each weight in all steps.
        torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False),
    ):
        yield


def precise(device: torch.device) -> torch.dtype:
    """The type in which long sums are computed on a device: float64 where it has that."""
    return torch.float32 if device.type == "mps" else torch.float64


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Compute denormal numbers as 0 in this thread, where the CPU can; then as before.

    Sparse training makes many: while a weight's gradient is 0, its momentum shrinks by a factor
    each step, and below 1.2e-38 a CPU takes many times as long for it. Threads that torch starts
    inside the context inherit the setting and keep it; those it started before do not flush.
    """
    before = _SMALLEST * 1.0 == 0.0  # torch has no getter; one control word holds for all floats
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def all_threads_flush() -> bool:
    """Whether all of torch's threads for an operation of this thread compute denormals as 0."""
    count = torch.get_num_threads() * _ELEMENTS_A_THREAD
    denormals = torch.ones(count, dtype=torch.int32).view(torch.float32)
    return not bool((denormals * 1.0).view(torch.int32).any())


def made_with(device: torch.device, model: nn.Module) -> dict[str, str]:
    """Versions, device and arithmetic of a model's training in this thread, stored with it."""
    on_gpu = device.type == "cuda"
    found = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
    with flushed_denormals():
        if device.type == "cpu" and all_threads_flush():
            found["denormals"] = "flushed"
    for way, layers in (("onednn", onednn_layers(model)), ("sparse", sparse_layers(model))):
        if layers:
            found[way] = " ".join(layers)
    return found
