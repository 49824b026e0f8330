"""Forward pass of P networks of one structure, over stacked parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import conv2d, pad
from torch.overrides import TorchFunctionMode

from lth_core.models.dropout import Dropout

Tensors = Mapping[str, Tensor]
Forward = Callable[[Tensors, Tensors, Tensor], Tensor]
"""(parameters (P, ...), buffers (P, ...), x (P, b, ...)) -> logits (P, b, classes)."""


class Way(StrEnum):
    """Way to compute a pack's forward pass."""

    STACKED = "stacked"
    """`torch.vmap`: a convolution of P networks is one grouped convolution. Chains of linear layers
    are computed without it: see `LinearChain`."""
    UNFOLDED = "unfolded"
    """`torch.vmap`, with each convolution as a matrix product of unfolded patches."""
    EACH = "each"
    """Each network by itself, on a GPU on its own stream, so that their kernels overlap."""


def ways_of(model: nn.Module, device: torch.device) -> list[Way]:
    """Ways that may be the fastest for a network on a device; the first is the default."""
    modules = list(model.modules())
    if any(isinstance(module, nn.RNNBase) for module in modules):  # `torch.vmap` has no rule
        return [Way.EACH]
    if device.type == "cuda" and any(isinstance(module, nn.Conv2d) for module in modules):
        return list(Way)
    return [Way.STACKED]


def packed_forward(model: nn.Module, count: int, way: Way) -> Forward:
    """The forward pass of ``count`` networks with the structure of ``model``."""

    def forward(parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        named = dict(parameters), dict(buffers)
        with _matrix_products(model, way):
            return cast("Tensor", functional_call(model, named, (x,)))

    if way is Way.EACH or count == 1:
        dropout = [m for m in model.modules() if isinstance(m, Dropout) and m.p]
        return _EachNetwork(forward, count, dropout)
    stacked = vmap(forward)

    def in_any_layout(parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        if x.shape[1] == 1 and not x.is_cuda:
            # On one example torch's own kernels (2.15, not oneDNN's) compute wrong gradients of a
            # grouped convolution whose weights are in channels_last.
            parameters = {name: _in_rows(tensor) for name, tensor in parameters.items()}
        return stacked(parameters, buffers, x)

    return in_any_layout


def _in_rows(tensor: Tensor) -> Tensor:
    """A differentiable copy in torch's default layout."""
    return tensor.clone(memory_format=torch.contiguous_format)


class _EachNetwork:
    """Forward passes of P networks, one by one; on a GPU on a stream each."""

    def __init__(self, forward: Forward, count: int, dropout: Sequence[Dropout]) -> None:
        self._forward, self._count, self._dropout = forward, count, dropout
        self._streams = list[torch.cuda.Stream]()

    def __call__(self, parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        parts = zip(_parts(parameters, self._count), _parts(buffers, self._count), x, strict=True)
        if x.is_cuda and self._count > 1:
            return torch.stack(self._on_streams(parts, x.device))
        return torch.stack([self._network(n, *part) for n, part in enumerate(parts)])

    def _network(self, number: int, parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        for layer in self._dropout:
            layer.choose(number)
        return self._forward(parameters, buffers, x)

    def _on_streams(
        self, parts: Iterable[tuple[Tensors, Tensors, Tensor]], device: torch.device
    ) -> list[Tensor]:
        if not self._streams:
            self._streams = [torch.cuda.Stream(device) for _ in range(self._count)]
        current, outputs = torch.cuda.current_stream(device), list[Tensor]()
        try:
            for number, (stream, part) in enumerate(zip(self._streams, parts, strict=True)):
                stream.wait_stream(current)
                with torch.cuda.stream(stream):
                    outputs.append(self._network(number, *part))
        finally:  # a capture that runs out of memory ends only where all streams are joined
            for stream in self._streams[: len(outputs) + 1]:
                current.wait_stream(stream)
        return outputs


def _parts(tensors: Tensors, count: int) -> list[Tensors]:
    """Tensors (P, ...) of a pack by network: (...) each, by name."""
    parts = {name: tensor.unbind() for name, tensor in tensors.items()}
    return [{name: part[number] for name, part in parts.items()} for number in range(count)]


@contextmanager
def _matrix_products(model: nn.Module, way: Way) -> Iterator[None]:
    """Compute attention, and for `Way.UNFOLDED` convolutions, as matrix products in the block."""
    with ExitStack() as stack:
        if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # fused kernels cannot be stacked
        if way is Way.UNFOLDED:
            stack.enter_context(_Unfolded())
        yield


class _Unfolded(TorchFunctionMode):
    """Mode in which a convolution is a matrix product of its weight and the unfolded patches."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (unfolded_conv2d if func is conv2d else func)(*args, **(kwargs or {}))


def unfolded_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """`conv2d` of x (b, in, height, width) by a matrix product; `conv2d` itself where there are
    groups, dilation or a padding by name.

    Patches are a copy of a view: torch's own `unfold` is a kernel for each example on a GPU.
    """
    if groups > 1 or isinstance(padding, str) or _two(dilation) != (1, 1):
        return conv2d(x, weight, bias, stride, padding, dilation, groups)
    (rows, columns), (down, right) = weight.shape[2:], _two(stride)
    above, left = _two(padding)
    padded = pad(x, (left, left, above, above))
    windows = padded.unfold(2, rows, down).unfold(3, columns, right)  # (b, in, y, x, rows, columns)
    patches = windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)
    out: Tensor = torch.matmul(weight.flatten(1), patches)  # (b, out, y x)
    if bias is not None:
        out = out + bias[:, None]
    return torch.unflatten(out, 2, windows.shape[2:4])


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
