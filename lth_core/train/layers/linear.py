"""Linear layers in float32 by oneDNN, where it is faster than the library that torch uses (MKL).

On AMD processors with 512-bit units (Zen 5) oneDNN computes a layer's three products (forward,
gradients of the input and of the weight) up to twice as fast. The two differ in the last bits, so a
store has one choice for each processor and shape.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lth_core.models.latency import device_name, float32_products
from lth_core.spec import sha256
from lth_core.store import Entry, Store
from lth_core.store.decode import check, read_entry
from lth_core.store.locks import claimed

KIND = "linears"
"""Kind of store entry."""
LEAST_PRODUCTS = 3_000_000
"""Multiplications of a layer for a batch, below which it is computed plainly and not measured: a
call of oneDNN takes 10 microseconds more."""
LEAST_GAIN = 1.4
"""Time of a plain layer, as a multiple of oneDNN's, from which oneDNN is used. Without 512-bit
units gains were 0.9 to 1.25 (docs/scale.md), so that repeated measurements choose the same."""
ROUNDS, SECONDS = 10, 0.1
"""Passes of each way, and duration, of a measurement at least."""


AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of torch has oneDNN's linear layer."""


class OneDNNLinear(nn.Linear):
    """A linear layer that oneDNN computes: float32, on a CPU, without autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., outputs) from (..., inputs)."""
        # oneDNN takes no empty batch, and `vmap` and other transforms do not know its products.
        if not x.numel() or torch._C._are_functorch_transforms_active():
            return super().forward(x)
        result: Tensor = _Linear.apply(x, self.weight, self.bias)
        return result


class _Linear(torch.autograd.Function):
    """x (..., inputs), weight (outputs, inputs), bias (outputs,) or None -> (..., outputs)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_product(_rows(x), weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, slopes = _rows(x), _rows(slope)
        # oneDNN's product has no derivative, which the gradients of a second backward pass need.
        product = linear if torch.is_grad_enabled() else onednn_product
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(slopes, weight.t()).view_as(x) if of_x else None,
            product(slopes.t(), rows.t()) if of_weight else None,
            slopes.sum(0) if of_bias else None,
        )


def _rows(x: Tensor) -> Tensor:
    """(..., n) as (rows, n)."""
    return x.reshape(-1, x.shape[-1])


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(rows, outputs) from x (rows, inputs), weight (outputs, inputs) and bias (outputs,)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


class LinearChoice:
    """The choice between oneDNN and the plain way, measured once a store, processor and shape."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gains: dict[str, float] = {}
        """Measured gains that this process knows, by key."""

    def apply(self, model: nn.Module, batch_size: int) -> None:
        """Let oneDNN compute the layers of a network that gain by it, in place.

        Layers on a GPU, in float64, of a subclass of `nn.Linear` or small stay as they are.
        """
        for layer in model.modules():
            if type(layer) is nn.Linear and self._gains_much(layer.weight, batch_size):
                layer.__class__ = OneDNNLinear

    def _gains_much(self, weight: Tensor, batch_size: int) -> bool:
        """Whether oneDNN can compute the layer of a weight (outputs, inputs), and is faster."""
        able = AVAILABLE and weight.device.type == "cpu" and weight.dtype == torch.float32
        large = batch_size * weight.numel() >= LEAST_PRODUCTS
        return able and large and self._gain(batch_size, *weight.shape) >= LEAST_GAIN

    def _gain(self, batch_size: int, outputs: int, inputs: int) -> float:
        """The gain of a shape: stored, or else measured and stored."""
        what = {
            "cpu": device_name(torch.device("cpu")), "torch": torch.__version__,
            "threads": torch.get_num_threads(), "batch_size": batch_size,
            "inputs": inputs, "outputs": outputs,
        }  # fmt: skip
        key = sha256(what)

        def stored() -> float | None:
            return read_entry(self._store, KIND, key, _gain_of)

        gain = self._gains.get(key) or stored()
        if gain is None:
            with claimed(self._store.files, key, lambda: stored() is not None) as acquired:
                if not acquired:  # another process has measured it
                    return self._gain(batch_size, outputs, inputs)
                gain = measured_gain(batch_size, inputs, outputs)
                self._store.put(KIND, key, {**what, "gain": gain})
        self._gains[key] = gain
        return gain


def measured_gain(batch_size: int, inputs: int, outputs: int) -> float:
    """Time of the three products of a plain layer, as a multiple of oneDNN's.

    They take turns and the shortest times count, on one thread of its own CPU time, so that other
    work on the machine matters little.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    x, slope = torch.full((batch_size, inputs), 0.5), torch.full((batch_size, outputs), 0.5)
    weight, bias = torch.full((outputs, inputs), 0.5), torch.full((outputs,), 0.5)
    best = [float("inf")] * 2
    started, rounds = time.perf_counter(), 0
    with float32_products(tf32=False):  # as in training
        while rounds < ROUNDS or time.perf_counter() - started < SECONDS:
            for turn, product in enumerate((linear, onednn_product)):
                began = clock()
                product(x, weight, bias)
                product(slope, weight.t())
                product(slope.t(), x.t())
                best[turn] = min(best[turn], clock() - began)
            rounds += 1
    return best[0] / best[1]


def onednn_layers(model: nn.Module) -> list[str]:
    """Names of a network's layers that oneDNN computes."""
    return [name for name, module in model.named_modules() if isinstance(module, OneDNNLinear)]


def _gain_of(entry: Entry) -> float:
    check(gain := entry.meta["gain"], float)
    return float(gain)
