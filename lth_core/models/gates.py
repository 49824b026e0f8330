"""Gates: a scale for each channel, between batch norm and activation (Wang et al. 2020).

A gate is a parameter ``NORM.gate`` of the batch norm behind the convolution that produces the
channels, 1 at first. Channels that several convolutions produce, or several layers read, have none:
in ResNets these are the stem's, the blocks' outputs and the shortcuts'. Nor have those without an
activation behind the batch norm, such as the outputs of MobileNet-V2's blocks.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lth_core.errors import SpecError
from lth_core.models.channels import ChannelGroup, Channels, Part, channels_of
from lth_core.models.layers import evaluation_mode, made_up_examples

GATE = ".gate"
"""End of a gate's parameter name."""

ACTIVATIONS = (
    "Relu", "Hardtanh", "LeakyRelu", "Elu", "Celu", "Gelu", "Silu", "Mish", "Hardswish", "Prelu",
    "Sigmoid", "Hardsigmoid", "Tanh", "Softplus", "Clamp", "Threshold",
)  # fmt: skip
"""Names of torch's activation functions in its graph of gradients."""


def add_gates(model: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Give the network's channels gates, in place.

    Args:
        name: the network's name, for the error.
        shape: shape of one example, such as (3, 32, 32).

    Raises:
        SpecError: no channel has a place for a gate.
    """
    activated, channels = _activated_norms(model, shape), channels_of(model, shape)
    places = {group: _place(model, channels[group], activated) for group in channels}
    # A norm of joined channels has gates if all of its channels are to have them.
    shared = {place for group, place in places.items() for other in places
              if place in _layers(channels[other]) and places[other] != place}  # fmt: skip
    names = dict.fromkeys(place for place in places.values() if place and place not in shared)
    if not names:
        rule = f"needs convolutions with batch norm and an activation, which {name} lacks"
        raise SpecError("prune.when", rule, "gates")
    for norm in map(model.get_submodule, names):
        assert isinstance(norm, _BatchNorm)
        norm.register_parameter("gate", nn.Parameter(torch.ones(norm.num_features)))
        norm.register_forward_hook(_multiply)


def gated(channels: Channels, model: nn.Module) -> Channels:
    """The groups that have gates in a network."""
    gates = {n.removesuffix(GATE) for n, _ in model.named_parameters() if n.endswith(GATE)}
    return {
        name: group
        for name, group in channels.items()
        if any(part.tensor.rpartition(".")[0] in gates for part in group.parts)
    }


def _layers(group: ChannelGroup) -> set[str]:
    """Names of the layers that have tensors of a group's channels."""
    return {part.tensor.rpartition(".")[0] for part in group.parts}


def _place(model: nn.Module, group: ChannelGroup, activated: Sequence[str]) -> str | None:
    """Name of the batch norm whose outputs the gates of a group multiply; None if there is none."""
    modules = dict(model.named_modules())
    layers = [modules[producer.rpartition(".")[0]] for producer in group.producers]
    # A depthwise convolution passes channels on, it makes none.
    made = [m for m in layers if not (isinstance(m, _ConvNd) and m.groups > 1)]
    readers = {part.tensor for part in group.parts if _is_read(modules, part)}
    if len(made) != 1 or not isinstance(made[0], _ConvNd) or len(readers) > 1:
        return None
    touched = _layers(group)
    return next((name for name in activated if name in touched), None)


def _is_read(modules: Mapping[str, nn.Module], part: Part) -> bool:
    """Whether a part is the inputs of a convolution or linear layer."""
    layer, _, attribute = part.tensor.rpartition(".")
    is_layer = isinstance(modules[layer], _ConvNd | nn.Linear)
    return is_layer and attribute == "weight" and not part.produces


def _activated_norms(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Names of the batch norms that an activation follows, and nothing else, as they are run."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.requires_grad_()
    nodes: dict[str, Any] = {}

    def keep(name: str, norm: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        nodes.setdefault(name, output.grad_fn)

    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_hook(partial(keep, name))
    with evaluation_mode(model), torch.enable_grad():
        output = model(made_up_examples(model, 2, shape))
    readers: dict[Any, list[str]] = defaultdict(list)
    queue, seen = [output.grad_fn], {output.grad_fn}
    while queue:
        node = queue.pop()
        for read, _ in node.next_functions:
            if read is not None:
                readers[read].append(type(node).__name__)
                if read not in seen:
                    seen.add(read)
                    queue.append(read)
    return [
        name
        for name, node in nodes.items()
        if len(readers[node]) == 1 and readers[node][0].startswith(ACTIVATIONS)
    ]


def _multiply(norm: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    """Multiply the output (b, channels, ...) of a batch norm by its gates."""
    gate = cast("Tensor", norm.gate)  # in a pack no parameter of the module
    return output * gate.view(1, -1, *[1] * (output.dim() - 2))
