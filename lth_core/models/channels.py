"""Channels of a network that can be removed, and the network without them.

A channel is an output of a convolution, or a neuron of a linear layer. Where outputs are added, as
in residual networks, or pass through a depthwise convolution, channels of several layers can only
be removed together, as one. torch-pruning finds these dependencies (Fang et al. 2023).
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lth_core.errors import SpecError
from lth_core.models.layers import (
    evaluation_mode,
    made_up_examples,
    parameter_of,
    prunable_layers,
    takes_ids,
    varied_examples,
)
from lth_core.plugins import errors_as_spec_errors
from lth_core.seeds import seeded_draws


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


SAME_OUTPUT = 1e-4
"""Largest difference of the outputs of two networks that compute the same, relative to an example's
largest output. In float32 it is smaller; where a part depends on a removed channel it is larger."""
EXPONENTS = -1, 3
"""Powers of ten of the scale of noise, least and largest: a function may be flat around 0, or far
from it."""
EXAMPLES = 16
"""Examples of noise, from weak to strong, on which two networks are compared: the largest of some
channels, for example, may be one that is kept."""

Channels = dict[str, ChannelGroup]
"""Groups of removable channels, by the parameter name of their first producer."""
Kept = dict[str, Tensor]
"""(channels,) bool of each group, by its name; True = kept."""


def channels_of(model: nn.Module, shape: tuple[int, ...]) -> Channels:
    """Groups of a network's removable channels, in the model's order.

    The output layer's are classes, and stay. So do channels that pass through anything but
    convolutions, linear layers, batch norm, and functions of single values or of positions: those
    of attention, layer norm and recurrent layers, for example. So do those of layers that share
    weights, and those that a user's code counts on, as a fixed `view` does.

    Args:
        shape: shape of one example, such as (3, 32, 32).

    Raises:
        SpecError: torch-pruning fails on a user's network.
    """
    import torch_pruning as tp

    model = copy.deepcopy(model).cpu().float()  # the run may change what a user's network keeps
    for parameter in model.parameters():
        parameter.requires_grad_()  # torch-pruning follows the graph of gradients
    graph = tp.DependencyGraph()
    failing = "must be a network that torch-pruning can follow, to have channels removed"
    with (
        evaluation_mode(model),
        torch.enable_grad(),
        warnings.catch_warnings(),
        errors_as_spec_errors("model.name", failing, type(model).__name__),
    ):
        warnings.simplefilter("ignore")  # about parameters outside of layers; their channels stay
        graph.build_dependency(model, made_up_examples(model, 2, shape), verbose=False)
        removals = list(graph.get_all_groups(root_module_types=(_ConvNd, nn.Linear)))
    order = [parameter_of(name) for name in prunable_layers(model)]
    shared = _shared_parameters(model)
    found: Channels = {}
    for removal in removals:
        if not all(_is_removable(item.dep.target.module) for item in removal):
            continue
        if not all(_is_in_range(removal, item, graph) for item in removal):
            continue
        parts = tuple(_parts(graph, removal, model))
        if any(part.tensor in shared for part in parts):
            continue
        weights = {part.tensor for part in parts if part.produces}
        producers = tuple(name for name in order if name in weights)
        if producers and order[-1] not in producers:
            found[producers[0]] = ChannelGroup(len(removal[0].idxs), producers, parts)
    return _sound(model, {name: found[name] for name in order if name in found}, shape)


def _shared_parameters(model: nn.Module) -> set[str]:
    """All names of the parameters that more than one module has."""
    names = defaultdict[int, list[str]](list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return {name for shared in names.values() if len(shared) > 1 for name in shared}


def _is_removable(module: object) -> bool:
    """Whether channels that pass through a module can be removed; torch-pruning wraps functions."""
    if isinstance(module, _ConvNd):
        return module.groups == 1 or is_depthwise(module)
    function = type(module).__module__ == "torch_pruning.ops" and not hasattr(module, "num_heads")
    return function or isinstance(module, nn.Linear | _BatchNorm)


def _is_in_range(removal: Any, item: Any, graph: Any) -> bool:
    """Whether an item names outputs or inputs that its layer has, and channels of the group.

    torch-pruning guesses wrong where concatenated maps are flattened, for example.
    """
    module = item.dep.target.module
    if not isinstance(module, _ConvNd | nn.Linear | _BatchNorm):
        return True
    pruner = graph.get_pruner_of_module(module)
    outputs = item.dep.handler == pruner.prune_out_channels
    size = pruner.get_out_channels(module) if outputs else pruner.get_in_channels(module)
    return bool(max(item.idxs) < size and max(item.root_idxs) < len(removal[0].idxs))


def is_depthwise(module: nn.Module) -> bool:
    """Whether a layer convolves each channel by itself, so that its inputs are its outputs."""
    if not isinstance(module, _ConvNd):
        return False
    return module.groups == module.in_channels == module.out_channels > 1


def _sound(model: nn.Module, channels: Channels, shape: tuple[int, ...]) -> Channels:
    """The groups that the network can do without a part of."""
    if _can_go(model, channels, shape):
        return channels
    return {name: group for name, group in channels.items() if _can_go(model, {name: group}, shape)}


def _can_go(model: nn.Module, channels: Channels, shape: tuple[int, ...]) -> bool:
    """Whether the network without either part of the channels computes what it does with these at
    0, and with these at any value but not read."""
    model = copy.deepcopy(model)
    with torch.no_grad(), seeded_draws(0):
        for parameter in model.parameters():
            # A weight of 0 would hide what depends on it. Large ones overflow in a deep network.
            drawn = torch.randn_like(parameter) / sqrt(max(1, parameter.shape[1:].numel()))
            parameter.copy_(torch.where(parameter == 0, drawn, parameter))
        # At random, and an odd number: a network that splits its channels in two may do without the
        # same part of both.
        half = {name: torch.randperm(group.size) < (group.size // 2 | 1)
                for name, group in channels.items()}  # fmt: skip
    other = {name: kept if len(kept) == 1 else ~kept for name, kept in half.items()}
    return all(_same_without(model, channels, kept, shape) for kept in (half, other))


def _same_without(model: nn.Module, channels: Channels, kept: Kept, shape: tuple[int, ...]) -> bool:
    """Whether the network without channels computes what it does where they are 0, and where no
    layer reads them: a maximum or a norm over the channels depends on those that are not read."""
    smaller = without_channels(model, channels, kept)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    try:
        with errors_as_spec_errors("model.name", "fails with fewer channels", type(model).__name__):
            for parts in (channels, _readers(model, channels)):
                masked = copy.deepcopy(model)
                for name, mask in masks_of(parts, kept, shapes).items():
                    masked.get_parameter(name).data *= mask
                if not same_outputs(smaller, masked, shape):
                    return False
    except SpecError:
        return False
    return True


def _readers(model: nn.Module, channels: Channels) -> Channels:
    """The groups with their readers alone; those without readers are whole."""
    found: Channels = {}
    for name, group in channels.items():
        readers = tuple(part for part in group.parts if is_read(model, part))
        found[name] = replace(group, parts=readers or group.parts)
    return found


def is_read(model: nn.Module, part: Part) -> bool:
    """Whether the part is the inputs of a convolution's or linear layer's weight."""
    if part.produces or part.tensor.rpartition(".")[2] != "weight":
        return False
    return isinstance(module_of(model, part.tensor), _ConvNd | nn.Linear)


def same_outputs(smaller: nn.Module, model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether two networks compute the same on examples of many sizes, in evaluation mode."""
    outputs = []
    for network in (copy.deepcopy(smaller), copy.deepcopy(model)):  # the run may change what it has
        with torch.no_grad(), evaluation_mode(network):
            examples = varied_examples(network, EXAMPLES, shape)
            if not takes_ids(network):
                examples *= torch.logspace(*EXPONENTS, EXAMPLES).view(-1, *[1] * len(shape))
            outputs.append(network(examples).flatten(1))
    output, expected = outputs
    if output.shape != expected.shape:
        return False
    largest = expected.abs().amax(1, keepdim=True)
    # Examples too large for a network's functions have no finite outputs.
    same = ((output - expected).abs() <= SAME_OUTPUT * largest) | ~largest.isfinite()
    return bool(same.all()) and bool(largest.isfinite().any())


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


def outputs_first(module: nn.Module, weight: Tensor) -> Tensor:
    """A layer's weight or mask with a row for each output; that of a transposed convolution has a
    row for each input."""
    if not isinstance(module, _ConvTransposeNd):
        return weight
    grouped: Tensor = weight.unflatten(0, (module.groups, -1))
    return grouped.transpose(1, 2).flatten(0, 1)


def _dimension(module: nn.Module, outputs: bool) -> int:
    """Dimension of a weight along its outputs or its inputs."""
    if is_depthwise(module):
        return 0
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
    entries = kept_entries(channels, kept)
    return {n: places(dims, shapes[n]) for n, dims in entries.items() if n in shapes}


def places(dims: Mapping[int, Tensor], shape: Sequence[int]) -> Tensor:
    """bool in a tensor's shape: the entries that are kept along each of some dimensions.

    >>> places({0: torch.tensor([True, False])}, (2, 3)).sum(1)
    tensor([3, 0])

    Args:
        dims: (entries,) bool by dimension.
    """
    kept = torch.ones(*shape, dtype=torch.bool)
    for dim, stays in dims.items():
        kept &= stays.view(-1, *[1] * (len(shape) - dim - 1))
    return kept


def narrow_shape(dims: Mapping[int, Tensor], shape: Sequence[int]) -> list[int]:
    """Shape of what is left of a tensor; arguments as in `places`."""
    return [int(dims[dim].sum()) if dim in dims else size for dim, size in enumerate(shape)]


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


# Networks without channels


def without_channels(model: nn.Module, channels: Channels, kept: Kept) -> nn.Module:
    """A copy of a network that has the kept channels alone.

    Args:
        channels: the network's, from `channels_of`.
    """
    model = copy.deepcopy(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    resized: dict[tuple[nn.Module, int], Tensor] = {}
    for name, dims in kept_entries(channels, kept).items():
        module, attribute = module_of(model, name), name.rpartition(".")[2]
        if attribute == "weight" or isinstance(module, _BatchNorm):  # a bias goes with its weight
            resized |= {(module, dim): entries for dim, entries in dims.items()}
    for (module, dim), entries in resized.items():
        _remove(module, dim, (~entries).nonzero().flatten().tolist())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model


def _remove(module: nn.Module, dim: int, entries: list[int]) -> None:
    """Remove entries of a layer along a dimension of its weight, in place."""
    import torch_pruning as tp

    if isinstance(module, _BatchNorm):
        tp.prune_batchnorm_out_channels(module, entries)
    elif isinstance(module, nn.Linear) and dim == 0:
        tp.prune_linear_out_channels(module, entries)
    elif isinstance(module, nn.Linear):
        tp.prune_linear_in_channels(module, entries)
    elif is_depthwise(module):
        tp.prune_depthwise_conv_out_channels(module, entries)
    elif (dim == 0) != isinstance(module, _ConvTransposeNd):
        tp.prune_conv_out_channels(module, entries)
    else:
        tp.prune_conv_in_channels(module, entries)


def module_of(model: nn.Module, tensor: str) -> nn.Module:
    """The layer of a parameter or buffer."""
    return model.get_submodule(tensor.rpartition(".")[0])
