"""Loss and gradients of a chain of linear layers, without autograd.

For small networks autograd takes longer than the arithmetic: it records each operation, and keeps
count of what is left to differentiate. The operations here are those of autograd in its order, so
one network's losses and gradients are equal bit for bit, and those of a pack to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lth_core.models.dropout import Dropout
from lth_core.models.networks.mlp import WithConstant
from lth_core.spec import Precision
from lth_core.train.layers.linear import OneDNNLinear, onednn_product
from lth_core.train.layers.sparse import SparseLinear, sparse_product

Own = Mapping[str, Tensor]
"""A layer's parameters, by its names for them."""
Gradients = dict[str, Tensor]
"""Gradients of a layer's parameters, by its names for them."""
Backward = Callable[[Tensor, bool], tuple[Tensor | None, Gradients]]
"""Backward pass of a layer: (gradient of its output, whether that of its input is needed) ->
(gradient of its input, those of its parameters)."""
MEAN, NONE, NO_LABEL = 1, 0, -100
"""torch's numbers of the ways to reduce losses, and of a label that is left out."""
aten = torch.ops.aten


class LinearChain:
    """A network that is a sequence of linear layers, or P networks of one structure.

    Args:
        model: a network of which `is_linear_chain` is true.
        parameters: those of P networks, (P, ...) by name; by default the model's own.
        precision: bf16 rounds the operands of the layers, as autocast does.
        compiled: compile the computation by `torch.compile`.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        parameters: Mapping[str, Tensor] | None = None,
        compiled: bool = False,
    ) -> None:
        whole = parameters or dict(model.named_parameters())
        self._count = len(next(iter(parameters.values()))) if parameters else 0
        self._dtype = torch.bfloat16 if precision == "bf16" else None
        self._layers: list[tuple[str, nn.Module, Own]] = []
        self._trained: list[tuple[Tensor, str, str]] = []
        """Parameters that need a gradient, their layers, and these layers' names for them."""
        for name, layer in model.named_children():
            if LAYERS[type(layer)] is _flatten or (isinstance(layer, Dropout) and not layer.p):
                continue
            own = {n: whole[f"{name}.{n}"] for n, _ in layer.named_parameters()}
            self._layers.append((name, layer, {n: self._part(p.detach()) for n, p in own.items()}))
            self._trained += [(p, name, n) for n, p in own.items() if p.requires_grad]
        self._gradients = torch.compile(self._compute) if compiled else self._compute

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Set the gradients of the mean loss of each network; returns that loss.

        Args:
            x: normalized examples, (b, ...) or (P, b, ...).
            y: labels, (b,) or (P x b,) int64.

        Returns:
            () or (P,).
        """
        with torch.no_grad():
            loss, gradients = self._gradients(self._part(x), y)
        for parameter, layer, name in self._trained:
            gradient = gradients[layer][name]
            if self._dtype:
                gradient = gradient.to(parameter.dtype)
            parameter.grad = gradient[None] if self._count == 1 else gradient
        return loss[None] if self._count == 1 else loss

    def _part(self, stacked: Tensor) -> Tensor:
        """A tensor of P networks, or of the only one: products of matrices differ in the last bits
        from those of stacks of one matrix."""
        return stacked[0] if self._count == 1 else stacked

    def _compute(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Gradients]]:
        """The losses, and the gradients of all parameters by layer."""
        x, backwards = x.flatten(2 if self._count > 1 else 1), list[Backward]()
        for _, layer, own in self._layers:
            if self._dtype:
                x, own = x.to(self._dtype), {n: p.to(self._dtype) for n, p in own.items()}
            x, backward = LAYERS[type(layer)](layer, own, x)
            backwards.append(backward)
        loss, of_logits = _loss_and_slope(x.float() if self._dtype else x, y)
        slope: Tensor | None = of_logits.to(x.dtype)
        gradients: dict[str, Gradients] = {}
        lowest = next(n for n, (_, _, own) in enumerate(self._layers) if own)
        for number in range(len(backwards) - 1, lowest - 1, -1):
            assert slope is not None
            name = self._layers[number][0]
            slope, gradients[name] = backwards[number](slope, number > lowest)
        return loss, gradients


def is_linear_chain(model: nn.Module) -> bool:
    """Whether a network is a sequence of the layers in `LAYERS`, each used once."""
    return (
        isinstance(model, nn.Sequential)
        and all(type(layer) in LAYERS for layer in model)
        and len(set(model)) == len(model)
        and any(True for _ in model.parameters())
    )


def _loss_and_slope(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of each network, and its gradient in the logits (b, c) or (P, b, c)."""
    rows = logits.flatten(0, -2)
    log_shares = aten._log_softmax(rows, 1, False)
    reduction = MEAN if logits.dim() == 2 else NONE
    losses, count = aten.nll_loss_forward(log_shares, y, None, reduction, NO_LABEL)
    if reduction == NONE:
        losses = losses.view(logits.shape[:-1]).mean(1)
        weight = logits.new_full((len(rows),), 1 / logits.shape[1])
    else:
        weight = logits.new_ones(())
    slope = aten.nll_loss_backward(weight, log_shares, y, None, reduction, NO_LABEL, count)
    slope = aten._log_softmax_backward_data(slope, log_shares, 1, logits.dtype)
    return losses, slope.view(logits.shape)


def _plain(layer: nn.Module, own: Own, x: Tensor) -> tuple[Tensor, Backward]:
    weight, bias = own["weight"], own.get("bias")

    def backward(slope: Tensor, of_x: bool) -> tuple[Tensor | None, Gradients]:
        gradients = {"weight": _product(slope.mT, x)}
        if bias is not None:
            gradients["bias"] = slope.sum(-2)
        if not of_x:
            return None, gradients
        if x.stride(-1) != 1:  # autograd gives the gradient x's layout, here that of sparse layers
            return _product(weight.mT, slope.mT).mT, gradients
        return _product(slope, weight), gradients

    if bias is None:
        return _product(x, weight.mT), backward
    if x.dim() == 3:
        return torch.baddbmm(bias[:, None], x, weight.mT), backward
    return torch.addmm(bias, x, weight.mT), backward


def _product(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b) if a.dim() == 3 else torch.mm(a, b)


def _with_constant(layer: nn.Module, own: Own, x: Tensor) -> tuple[Tensor, Backward]:
    y, whole = _plain(layer, own, pad(x, (0, 1), value=1.0))

    def backward(slope: Tensor, of_x: bool) -> tuple[Tensor | None, Gradients]:
        below, gradients = whole(slope, of_x)
        return None if below is None else below[..., :-1], gradients

    return y, backward


def _onednn(layer: nn.Module, own: Own, x: Tensor) -> tuple[Tensor, Backward]:
    weight, bias = own["weight"], own.get("bias")

    def backward(slope: Tensor, of_x: bool) -> tuple[Tensor | None, Gradients]:
        gradients = {"weight": onednn_product(slope.t(), x.t())}
        if bias is not None:
            gradients["bias"] = slope.sum(0)
        return onednn_product(slope, weight.t()) if of_x else None, gradients

    return onednn_product(x, weight, bias), backward


def _sparse(layer: nn.Module, own: Own, x: Tensor) -> tuple[Tensor, Backward]:
    pattern = cast("SparseLinear", layer).pattern
    y, backward = sparse_product(x, own["values"], own.get("bias"), pattern)

    def named(slope: Tensor, of_x: bool) -> tuple[Tensor | None, Gradients]:
        below, of_values, of_bias = backward(slope, of_x)
        return below, {"values": of_values} | ({} if of_bias is None else {"bias": of_bias})

    return y, named


def _relu(layer: nn.Module, own: Own, x: Tensor) -> tuple[Tensor, Backward]:
    y = x.relu()
    return y, lambda slope, of_x: (aten.threshold_backward(slope, y, 0), {})


def _dropout(layer: Dropout, own: Own, x: Tensor) -> tuple[Tensor, Backward]:
    kept, share = (layer.kept(x) if x.dim() == 3 else layer.kept(x[None])[0]), 1 - layer.p
    return x * kept / share, lambda slope, of_x: (slope / share * kept, {})


def _flatten(layer: nn.Module, own: Own, x: Tensor) -> tuple[Tensor, Backward]:
    raise NotImplementedError("the chain flattens its examples")


LAYERS: dict[type[nn.Module], Callable[[Any, Own, Tensor], tuple[Tensor, Backward]]] = {
    nn.Flatten: _flatten,
    nn.Linear: _plain,
    OneDNNLinear: _onednn,
    SparseLinear: _sparse,
    WithConstant: _with_constant,
    nn.ReLU: _relu,
    Dropout: _dropout,
}
"""Computation of each kind of layer: (layer, its parameters, x) -> output and backward pass."""
