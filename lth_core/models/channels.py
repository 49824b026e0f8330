"""Channels of a network that can be removed, and the network without them.

A channel is an output of a convolution, or a neuron of a linear layer. Where outputs are added, as
in residual networks, or pass through a depthwise convolution, channels of several layers can only
be removed together, as one. torch-pruning finds these dependencies (Fang et al. 2023).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lth_core.models.layers import (
    evaluation_mode,
    made_up_examples,
    parameter_of,
    prunable_layers,
)


@dataclass(frozen=True, slots=True)
class Part:
    """Entries of a tensor along one dimension that belong to the channels of a group."""

    tensor: str
    """Name of a parameter or buffer."""
    dim: int
    channel: Tensor
    """(entries,) int64: the channel to which each entry belongs; -1 where to none."""
    produces: bool
    """Whether these are the outputs of a convolution or linear layer."""


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels of one or more layers; channel i of all of them is one channel."""

    size: int
    """Number of channels."""
    producers: tuple[str, ...]
    """Weights whose outputs are the channels, by parameter name, in the model's order."""
    parts: tuple[Part, ...]
    """Everything that goes with a removed channel: outputs of the producers, their biases and
    norms, and inputs of the layers that read the channels."""


Channels = dict[str, ChannelGroup]
"""Groups of removable channels, by the parameter name of their first producer."""
Kept = dict[str, Tensor]
"""(channels,) bool of each group, by its name; True = kept."""


def channels_of(model: nn.Module, shape: tuple[int, ...]) -> Channels:
    """Groups of a network's removable channels, in the model's order.

    The output layer's are classes, and stay. So do channels that pass through anything but
    convolutions, linear layers, batch norm, and functions of single values or of positions: those
    of attention, layer norm and recurrent layers, for example.

    Args:
        shape: shape of one example, such as (3, 32, 32).
    """
    import torch_pruning as tp

    model = copy.deepcopy(model).float()  # the run may change what a user's network keeps
    for parameter in model.parameters():
        parameter.requires_grad_()  # torch-pruning follows the graph of gradients
    graph = tp.DependencyGraph()
    with evaluation_mode(model), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about parameters outside of layers; their channels stay
        graph.build_dependency(model, made_up_examples(model, 2, shape), verbose=False)
    order = [parameter_of(name) for name in prunable_layers(model)]
    found: Channels = {}
    for removal in graph.get_all_groups(root_module_types=(_ConvNd, nn.Linear)):
        if not all(_is_removable(item.dep.target.module) for item in removal):
            continue
        parts = tuple(_parts(graph, removal, model))
        weights = {part.tensor for part in parts if part.produces}
        producers = tuple(name for name in order if name in weights)
        if producers and order[-1] not in producers:
            found[producers[0]] = ChannelGroup(len(removal[0].idxs), producers, parts)
    return {name: found[name] for name in order if name in found}


def _is_removable(module: object) -> bool:
    """Whether channels that pass through a module can be removed; torch-pruning wraps functions."""
    if isinstance(module, _ConvNd):
        return module.groups in (1, module.out_channels)
    function = type(module).__module__ == "torch_pruning.ops" and not hasattr(module, "num_heads")
    return function or isinstance(module, nn.Linear | _BatchNorm)


def _parts(graph: Any, removal: Any, model: nn.Module) -> Iterator[Part]:
    """Parts of the tensors that a removal of all channels of a torch-pruning group touches."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    names = {id(tensor): name for name, tensor in tensors}
    for item in removal:
        module = item.dep.target.module
        if not isinstance(module, _ConvNd | nn.Linear | _BatchNorm):
            continue
        outputs = item.dep.handler == graph.get_pruner_of_module(module).prune_out_channels
        norm = isinstance(module, _BatchNorm)
        for attribute in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(module, attribute, None)
            if tensor is None or (tensor.dim() == 1 and not (outputs or norm)):
                continue
            dim = _dimension(module, outputs) if tensor.dim() > 1 else 0
            channel = torch.full((tensor.shape[dim],), -1)
            channel[torch.tensor(item.idxs)] = torch.tensor(item.root_idxs)
            yield Part(names[id(tensor)], dim, channel, outputs and tensor.dim() > 1)


def _dimension(module: nn.Module, outputs: bool) -> int:
    """Dimension of a weight along its outputs or its inputs."""
    if isinstance(module, _ConvNd) and module.groups > 1:
        return 0  # depthwise
    return int(outputs == isinstance(module, _ConvTransposeNd))


# Kept entries of tensors


def kept_entries(channels: Channels, kept: Kept) -> dict[str, dict[int, Tensor]]:
    """(entries,) bool of each dimension of each tensor that loses entries, by name.

    Args:
        kept: groups that are not named keep all channels.
    """
    found: dict[str, dict[int, Tensor]] = {}
    for name, group in channels.items():
        if name not in kept or bool(kept[name].all()):
            continue
        for part in group.parts:
            stays = (part.channel < 0) | kept[name][part.channel]
            dims = found.setdefault(part.tensor, {})
            dims[part.dim] = dims[part.dim] & stays if part.dim in dims else stays
    return found


def masks_of(channels: Channels, kept: Kept, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Masks of the parameters, weights and others, that a network without channels has less of.

    Args:
        shapes: shape of each parameter, by name.

    Returns:
        bool in the shape of each parameter that loses entries, by name; True = kept.
    """
    masks: dict[str, Tensor] = {}
    for name, dims in kept_entries(channels, kept).items():
        if name in shapes:
            masks[name] = torch.ones(shapes[name], dtype=torch.bool)
            for dim, stays in dims.items():
                masks[name] &= stays.view(-1, *[1] * (len(shapes[name]) - dim - 1))
    return masks


def kept_channels(channels: Channels, mask: Mapping[str, Tensor]) -> Kept:
    """Channels of which a producer has a kept weight.

    Args:
        mask: (out, in, ...) bool of each prunable weight, by parameter name.
    """
    kept = {name: torch.zeros(group.size, dtype=torch.bool) for name, group in channels.items()}
    for name, group in channels.items():
        for part in group.parts:
            if part.produces:
                alive = mask[part.tensor].movedim(part.dim, 0).flatten(1).any(1)
                own = part.channel >= 0
                kept[name][part.channel[own & alive]] = True
    return kept
