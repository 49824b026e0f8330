"""Forward pass of P networks of one structure, over stacked parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad

from lth_core.models.dropout import Dropout
from lth_core.models.networks.mlp import WithConstant

Tensors = Mapping[str, Tensor]
Forward = Callable[[Tensors, Tensors, Tensor], Tensor]
"""(parameters (P, ...), buffers (P, ...), x (P, b, ...)) -> logits (P, b, classes)."""


def stacked_forward(model: nn.Module, count: int) -> Forward:
    """The forward pass of ``count`` networks with the structure of ``model``.

    One network is called as it is. A chain of linear layers is computed by batched matrix products,
    because `torch.vmap` costs more than small ones do. Other networks are computed by `torch.vmap`.
    """
    if count > 1 and is_linear_chain(model):
        return lambda parameters, buffers, x: _chain(model, parameters, x)

    def forward(parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        return cast("Tensor", functional_call(model, (dict(parameters), dict(buffers)), (x,)))

    def alone(parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        return forward(_first(parameters), _first(buffers), x[0])[None]

    return vmap(_plain_attention(model, forward)) if count > 1 else alone


def _plain_attention(model: nn.Module, forward: Forward) -> Forward:
    """A forward pass whose attention is plain matrix products: fused kernels cannot be stacked."""
    if not any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        return forward

    def plain(parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return forward(parameters, buffers, x)

    return plain


def _first(tensors: Tensors) -> Tensors:
    return {name: tensor[0] for name, tensor in tensors.items()}


def is_linear_chain(model: nn.Module) -> bool:
    """Whether a network is a sequence of the layers in `LAYERS`."""
    return isinstance(model, nn.Sequential) and all(type(layer) in LAYERS for layer in model)


def _chain(model: nn.Module, parameters: Tensors, x: Tensor) -> Tensor:
    for name, layer in model.named_children():
        own = {n: parameters[f"{name}.{n}"] for n, _ in layer.named_parameters()}
        x = LAYERS[type(layer)](layer, own, x)
    return x


def _linear(layer: nn.Module, own: Tensors, x: Tensor) -> Tensor:
    weight = own["weight"].transpose(1, 2)
    return torch.baddbmm(own["bias"][:, None], x, weight) if "bias" in own else torch.bmm(x, weight)


LAYERS: dict[type[nn.Module], Callable[[Any, Tensors, Tensor], Tensor]] = {
    nn.Flatten: lambda layer, own, x: x.flatten(2),
    nn.Linear: _linear,
    WithConstant: lambda layer, own, x: _linear(layer, own, pad(x, (0, 1), value=1.0)),
    nn.ReLU: lambda layer, own, x: x.relu(),
    Dropout: lambda layer, own, x: layer.stacked(x),
}
"""Stacked computation of each kind of layer: (layer, its parameters (P, ...), x) -> output."""
