"""Scores of channels: by batch norm's scale, by gates, by their effect on the loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from lth_core.errors import SpecError
from lth_core.masks import layer_of
from lth_core.models.derivatives import differentiable
from lth_core.prune.network import PrunableNetwork, Scores


def slimming(network: PrunableNetwork) -> Scores:
    """|scale| of a channel's batch norm: network slimming (Liu et al. 2017).

    It is to follow training with `train.norm_penalty`. Of coupled channels it is the mean of all
    their scales. Channels of equal scale, as all are before training, are drawn at random.
    """
    return over_weights(network, _of_norms(network, "prune.score", "slimming", "weight"))


def gates(network: PrunableNetwork) -> Scores:
    """The gate of a channel (Wang et al. 2020); see `lth_core.models.gates`.

    Many gates are exactly 0 or 1: a seeded draw decides among them.
    """
    return over_weights(network, _of_norms(network, "prune.when", "gates", "gate"))


def taylor(network: PrunableNetwork) -> Scores:
    """(sum of p dL/dp)^2 over the scales and shifts of a channel's batch norm: the square of the
    loss's change without it, to first order (Molchanov et al. 2019).

    Without batch norm it is over the weights that produce the channel. Behind batch norm that sum
    would be 0, because their size has no effect. Batch norm uses `prune.statistics`; examples are
    those of `prune.examples`.

    Raises:
        SpecError: batch norm behind a channel has no scales.
    """
    model, (x, y) = network.model(), network.batch()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    affine = {
        f"{layer}.{name}"
        for layer, module in norms.items()
        for name, _ in module.named_parameters(recurse=False)
    }
    parameters = {name: model.get_parameter(name) for name in [*network.mask, *affine]}
    for parameter in parameters.values():
        parameter.requires_grad_()
    with differentiable(model):
        gradients = torch.autograd.grad(cross_entropy(model(x), y), list(parameters.values()))
    effects = {
        name: (parameter.detach() * gradient).float().cpu()
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
    }
    totals: dict[str, Tensor] = {}
    for name, group in network.channels().items():
        normed = [part for part in group.parts if part.tensor in affine]
        produced = [part for part in group.parts if part.produces]
        if not normed and any(part.tensor.rpartition(".")[0] in norms for part in group.parts):
            rule = f"needs scales in the batch norm behind {layer_of(name)}"
            raise SpecError("prune.score", rule, "taylor")
        totals[name] = torch.zeros(group.size)
        for part in normed or produced:
            rows = effects[part.tensor].movedim(part.dim, 0)
            change = rows.reshape(len(rows), -1).sum(1)
            own = part.channel >= 0
            totals[name].index_add_(0, part.channel[own], change[own])
    return over_weights(network, {name: total.square() for name, total in totals.items()})


def over_weights(network: PrunableNetwork, values: Mapping[str, Tensor]) -> Scores:
    """Scores of weights, each that of the channel which it produces; 0 elsewhere.

    Args:
        values: (channels,) float of each group, by its name.
    """
    scores = {name: torch.zeros(mask.shape) for name, mask in network.mask.items()}
    for name, group in network.channels().items():
        for part in group.parts:
            if part.produces:
                own = part.channel >= 0
                rows = scores[part.tensor].movedim(part.dim, 0)
                of_channel = values[name].float()[part.channel[own]]
                rows[own] = of_channel.view(-1, *[1] * (rows.dim() - 1)).expand_as(rows[own])
    return scores


def _of_norms(
    network: PrunableNetwork, field: str, value: str, attribute: str
) -> dict[str, Tensor]:
    """Mean size of an attribute of the batch norms behind each channel, (channels,) per group."""
    norms: dict[str, nn.Module] = {
        name: module
        for name, module in network.copy().named_modules()
        if isinstance(module, _BatchNorm) and getattr(module, attribute, None) is not None
    }
    found: dict[str, Tensor] = {}
    for name, group in network.channels().items():
        total, count = torch.zeros(group.size), torch.zeros(group.size)
        first: dict[str, str] = {}  # of a norm's tensors, one stands for all
        for part in group.parts:
            layer = part.tensor.rpartition(".")[0]
            if layer in norms and first.setdefault(layer, part.tensor) == part.tensor:
                size = getattr(norms[layer], attribute).detach().abs().float().cpu()
                own = part.channel >= 0
                total.index_add_(0, part.channel[own], size[own])
                count.index_add_(0, part.channel[own], torch.ones_like(size[own]))
        if not bool(count.all()):
            rule = f"needs batch norm behind every pruned layer, which {layer_of(name)} lacks"
            raise SpecError(field, rule, value)
        found[name] = total / count
    return found
