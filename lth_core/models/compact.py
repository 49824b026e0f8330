"""A network without the channels that do not matter to its output: physically smaller.

Which channels are constant is found by running the network on noise, so that no list of activations
and normalizations is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lth_core.errors import SpecError
from lth_core.models.channels import (
    EXPONENTS,
    Channels,
    Kept,
    Part,
    channels_of,
    is_depthwise,
    is_read,
    masks_of,
    module_of,
    same_outputs,
    without_channels,
)
from lth_core.models.layers import evaluation_mode, varied_examples
from lth_core.plugins import errors_as_spec_errors

Alive = Mapping[str, Tensor]
"""bool of each parameter, by name: True = not fixed at 0."""

FIELD = "model.name"

PROBES = 8
"""Examples of noise that show which channels are constant."""
EQUAL = 1e-6
"""Largest relative difference between two values of a constant: the last bits of a function depend
on the place of a value in its vector."""


def compact(model: nn.Module, mask: Mapping[str, Tensor], shape: tuple[int, ...]) -> nn.Module:
    """A copy of a network, on the CPU, without the channels that its mask makes superfluous.

    It computes what the masked network computes in evaluation mode. A channel goes

    - if no kept weight reads it; or
    - if its value is the same for every example, and is 0 or is folded into the bias of every layer
      that reads it. A layer without bias is given one. A convolution with zero padding cannot fold
      it: near the border it reads zeros instead.

    Channels that can only be removed together go if this holds for all of them. A layer of which no
    channel matters keeps one.

    Args:
        mask: bool of parameters, by name, in their shapes; True = kept. Parameters that it does not
            name are kept.
        shape: shape of one example, such as (3, 32, 32).

    Raises:
        SpecError: the network's own code depends on the number of channels.
    """
    return compact_and_kept(model, mask, shape)[0]


def compact_and_kept(
    model: nn.Module, mask: Mapping[str, Tensor], shape: tuple[int, ...]
) -> tuple[nn.Module, Kept]:
    """The network of `compact`, and the channels of the full network that it has."""
    model, channels = copy.deepcopy(model).cpu(), channels_of(model, shape)
    full = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    alive = {
        name: mask[name].cpu().clone() if name in mask else ones for name, ones in full.items()
    }
    kept = {name: torch.ones(group.size, dtype=torch.bool) for name, group in channels.items()}
    _set_zeros(model, alive)
    masked = copy.deepcopy(model)
    while superfluous := _superfluous(model, channels, kept, alive, shape):
        for name, goes in superfluous.items():
            kept[name] &= ~goes
        shapes = {name: value.shape for name, value in alive.items()}
        for name, stays in masks_of(channels, kept, shapes).items():
            alive[name] &= stays
        _set_zeros(model, alive)
    smaller = without_channels(model, channels, kept)
    _check_output(smaller, masked, shape)
    return smaller, kept


# Channels that do not matter


def _superfluous(
    model: nn.Module, channels: Channels, kept: Kept, alive: Alive, shape: tuple[int, ...]
) -> Kept:
    """Channels that can go, and have not gone yet; the constant ones are folded into biases.

    Returns:
        (channels,) bool of each group that has such a channel; True = goes.
    """
    # With the weights as they are, one that is tiny or 0 would hide that a channel can vary.
    lets_pass = _inputs(_unit_weights(model, alive), channels, shape)
    inputs = _inputs(model, channels, shape)
    found: Kept = {}
    for name, group in channels.items():
        readers = [part for part in group.parts if is_read(model, part)]
        goes = kept[name].clone()
        for part in readers:
            value, equal = inputs[part.tensor].value, inputs[part.tensor].equal
            constant = equal & lets_pass[part.tensor].equal
            can_fold = constant & _foldable(module_of(model, part.tensor), value)
            read = alive[part.tensor].movedim(part.dim, 0).flatten(1).any(1)
            stays = part.channel[read & ~can_fold]
            goes[stays[stays >= 0]] = False
        if goes.equal(kept[name]):
            goes[goes.nonzero()[0]] = False  # a layer needs a channel
        if not readers or not goes.any():
            continue
        found[name] = goes
        for part in readers:
            _fold(module_of(model, part.tensor), part, goes, inputs[part.tensor].value)
    return found


def _foldable(module: nn.Module, value: Tensor) -> Tensor:
    """Which constant inputs a layer's bias can take over.

    Args:
        value: (inputs,) float32, the constants.

    Returns:
        (inputs,) bool.
    """
    if isinstance(module, _ConvTransposeNd):
        return value == 0
    if isinstance(module, _ConvNd):
        zeros = module.padding_mode == "zeros" and any(module._reversed_padding_repeated_twice)
        return (value == 0) | (not zeros)
    return torch.ones_like(value, dtype=torch.bool)


def _fold(module: Any, part: Part, goes: Tensor, value: Tensor) -> None:
    """Add constant inputs times their weights to a layer's bias.

    Args:
        goes: (channels,) bool.
        value: (inputs,) float32, the constants.
    """
    entries = (part.channel >= 0) & goes[part.channel]
    if not entries.any():
        return
    weight = module.weight.detach().movedim(part.dim, 0)[entries]
    change = value[entries] @ weight.reshape(*weight.shape[:2], -1).sum(2)
    if module.bias is None and change.any():
        module.bias = nn.Parameter(torch.zeros_like(change))
    if module.bias is not None:
        module.bias.data += change


# Inputs of layers


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Inputs of a layer, over all examples and positions."""

    value: Tensor
    """(inputs,) float32, at the first example and position."""
    equal: Tensor
    """(inputs,) bool: whether they are the same everywhere, and finite."""

    @classmethod
    def of(cls, x: Tensor) -> _Inputs:
        """The inputs of one call, (rows, inputs)."""
        return cls(x[0], torch.isclose(x, x[0], rtol=EQUAL, atol=0).all(0) & x[0].isfinite())

    def padded(self, size: int) -> _Inputs:
        """With the inputs that a layer adds itself, such as the constant of mlp-constant."""
        more = (0, size - len(self.value))
        return _Inputs(pad(self.value, more), pad(self.equal, more))

    def and_of(self, other: _Inputs) -> _Inputs:
        """The inputs of this call and another."""
        same = torch.isclose(self.value, other.value, rtol=EQUAL, atol=0)
        return _Inputs(self.value, self.equal & other.equal & same)


def _inputs(model: nn.Module, channels: Channels, shape: tuple[int, ...]) -> dict[str, _Inputs]:
    """Inputs of the layers that read channels, by weight, in a run in which all layers that produce
    channels get noise in place of their inputs; so what is constant depends on no example.

    A depthwise layer passes its constant inputs on.
    """
    model = copy.deepcopy(model)  # the run may change what a user's network keeps
    parts = [part for group in channels.values() for part in group.parts]
    sizes = {part.tensor: len(part.channel) for part in parts if is_read(model, part)}
    produced = {part.tensor for part in parts if part.produces}
    found: dict[str, _Inputs] = {}

    def watch(name: str, module: nn.Module) -> None:
        axis = 1 if isinstance(module, _ConvNd) else -1

        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
            (x,) = (*arguments, *named.values())
            rows = x.movedim(axis, -1)
            inputs = _Inputs.of(rows.flatten(0, -2))
            if name in sizes:
                seen = inputs.padded(sizes[name])
                found[name] = found[name].and_of(seen) if name in found else seen
            if name in produced:
                passed = inputs.equal & is_depthwise(module)
                return (torch.where(passed, rows, _noise(rows)).movedim(-1, axis),), {}
            return None

        module.register_forward_pre_hook(hook, with_kwargs=True)

    for name in sizes.keys() | produced:
        watch(name, module_of(model, name))
    with torch.no_grad(), evaluation_mode(model):
        model(varied_examples(model, PROBES, shape))
    return found


def _noise(x: Tensor) -> Tensor:
    """Noise in the shape of an input (b, ...): of both signs, from weak to strong."""
    count = -(-x.shape[0] // 2)
    scales = torch.logspace(*EXPONENTS, count).view(-1, *[1] * (x.dim() - 1))
    noise = torch.randn(count, *x.shape[1:]) * scales
    return torch.cat([noise, -noise])[: x.shape[0]]


def _unit_weights(model: nn.Module, alive: Alive) -> nn.Module:
    """A copy whose kept weights and scales are 1, so that noise passes through small ones and 0."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        is_layer = isinstance(module_of(model, name), _ConvNd | nn.Linear | _BatchNorm)
        if is_layer and name.rpartition(".")[2] == "weight":
            parameter.data.copy_(alive[name])
    return model


def _set_zeros(model: nn.Module, alive: Alive) -> None:
    for name, entries in alive.items():
        model.get_parameter(name).data.masked_fill_(~entries, 0)


def _check_output(smaller: nn.Module, model: nn.Module, shape: tuple[int, ...]) -> None:
    """Check that both networks compute the same on two examples."""
    name = type(model).__name__
    with errors_as_spec_errors(FIELD, "cannot be made smaller: it fails with fewer channels", name):
        same = same_outputs(smaller, model, shape)
    if not same:
        rule = "cannot be made smaller: its own code depends on the channels of a layer"
        raise SpecError(FIELD, rule, name)
