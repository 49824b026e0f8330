"""The floor of a training step: the least time that its arithmetic takes on this machine.

The FLOPs of its matrix products at the rate of the fastest product that torch has in that
precision, and the optimizer's bytes at the rate of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_core.spec import Optimizer, Precision

SIDE = 1024
"""Rows and columns of the measured products."""
GEMM_FLOPS = 2 * SIDE**3

OPTIMIZER_NUMBERS = {"sgd": 3, "adam": 7, "adamw": 7}
"""Floats that a step reads and writes for a weight: SGD reads weight and gradient and writes the
weight; Adam reads and writes two moments too."""
MOMENTUM_NUMBERS = 2
"""Floats more of SGD with momentum."""
SMALLEST, SUMMED = 2**16, 2**22
"""Least numbers of an array whose sum is measured, below which the call itself takes the time; and
numbers that are summed in a measurement."""


@dataclass(frozen=True)
class Work:
    """Arithmetic and memory traffic of a training step.

    flops: of the matrix products and convolutions, forward and backward; of the first layer no
        gradient of its input.
    optimizer_bytes: that the optimizer reads and writes.
    """

    flops: float
    optimizer_bytes: float

    def seconds(self, flops_a_second: float, bytes_a_second: float) -> float:
        """Least duration of the step at these rates.

        >>> Work(flops=4e9, optimizer_bytes=1e9).seconds(8e9, 2e9)
        1.0
        """
        return self.flops / flops_a_second + self.optimizer_bytes / bytes_a_second


def work_of(model: nn.Module, batch: Tensor, optimizer: Optimizer, momentum: float = 0.0) -> Work:
    """Work of a training step of a network on a batch, counted by torch; gradients are cleared.

    Args:
        batch: (n, ...) float32 examples; their labels do not matter.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        logits = model(batch)
        cross_entropy(logits, torch.zeros(len(batch), dtype=torch.int64)).backward()
    model.zero_grad()
    numbers = OPTIMIZER_NUMBERS[optimizer]
    if optimizer == "sgd" and momentum:
        numbers += MOMENTUM_NUMBERS
    weights = sum(parameter.numel() for parameter in model.parameters())
    return Work(counter.get_total_flops(), 4.0 * numbers * weights)


def products(precision: Precision) -> dict[str, Callable[[], object]]:
    """The matrix products of torch in a precision, by name; each computes `GEMM_FLOPS`."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.rand(SIDE, SIDE, generator=draw) for _ in range(2))
    if precision == "bf16":
        a, b = a.bfloat16(), b.bfloat16()
    out = torch.empty_like(a)
    found: dict[str, Callable[[], object]] = {"mm": lambda: torch.mm(a, b, out=out)}
    if precision == "fp32" and torch.backends.mkldnn.is_available():
        linear = torch.ops.mkldnn._linear_pointwise
        found["oneDNN"] = lambda: linear(a, b, None, "none", [], "")
    return found


def traffic(numbers: int) -> tuple[Callable[[], object], float]:
    """A sum of two arrays as large as a network's weights, some times, and the bytes that it moves.

    Weights that fit into a cache are read from it in training too.

    Args:
        numbers: number of the weights.
    """
    numbers = max(numbers, SMALLEST)
    a, b = torch.zeros(numbers), torch.ones(numbers)
    repeats = max(1, SUMMED // numbers)

    def run() -> None:
        for _ in range(repeats):
            a.add_(b)

    return run, 12.0 * numbers * repeats
