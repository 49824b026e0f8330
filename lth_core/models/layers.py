"""A network's prunable layers: their weights' shapes, positions and FLOPs."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.rnn import PackedSequence

from lth_core.seeds import seeded_draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A prunable layer under a mask."""

    shape: tuple[int, ...]
    """Shape of the layer's weight, (out, in, ...)."""
    kept: int
    """Weights that the mask keeps."""
    positions: int
    """Multiplications by each weight for one example."""

    @property
    def weights(self) -> int:
        """Number of weights, kept and pruned."""
        return prod(self.shape)

    @property
    def flops(self) -> int:
        """Forward FLOPs per example of the kept weights, 2 per multiply-add."""
        return 2 * self.kept * self.positions

    @property
    def dense_flops(self) -> int:
        """Forward FLOPs per example of all weights."""
        return 2 * self.weights * self.positions


class PrunableLayer(NamedTuple):
    """A prunable weight, (out, in, ...), and the module that multiplies by it.

    A module of several weights (attention, LSTM) is several layers. Weights of transposed
    convolutions are (in, out, ...), as torch stores them.
    """

    module: nn.Module
    weight: nn.Parameter


# Names

_OWN_NAME = re.compile(r"(in|q|k|v)_proj_weight|weight_(ih|hh|hr)(_l\d+(_reverse)?)?")
"""Names of weights in modules of several weights: there the layer has the weight's name."""


def parameter_of(layer: str) -> str:
    """Name of a layer's prunable parameter.

    >>> parameter_of("fc1"), parameter_of(""), parameter_of("lstm.weight_hh_l0")
    ('fc1.weight', 'weight', 'lstm.weight_hh_l0')
    """
    if _OWN_NAME.fullmatch(layer.rpartition(".")[2]):
        return layer
    return f"{layer}.weight" if layer else "weight"


def layer_of(parameter: str) -> str:
    """Name of a prunable parameter's layer; the inverse of `parameter_of`."""
    if _OWN_NAME.fullmatch(parameter.rpartition(".")[2]):
        return parameter
    return parameter.removesuffix("weight").removesuffix(".")


# Layers


def prunable_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    """Layers whose weight can be pruned, by name, in the model's order; the last is the output.

    These are linear, bilinear, convolution, attention and recurrent layers; normalization
    parameters, embeddings and biases are not prunable. A weight that several modules share is one
    layer, under its first name. After `set_layers` they are the layers that take part in the
    output, and the last one makes it; before, the output is the layer that is declared last.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, PrunableLayer] = {}
    for module in model.modules():
        for attribute in _weights_of(module):
            weight = getattr(module, attribute)
            if id(weight) in names:  # else it is computed from other parameters
                found.setdefault(layer_of(names[id(weight)]), PrunableLayer(module, weight))
    order: tuple[str, ...] | None = getattr(model, _ORDER, None)
    return found if order is None else {name: found[name] for name in order}


def layers_without_units(model: nn.Module) -> list[str]:
    """Names of the prunable layers whose weight is not one row for each output unit."""
    plain = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    return [n for n, layer in prunable_layers(model).items() if not isinstance(layer.module, plain)]


_ORDER = "_lth_prunable_layers"


def layers_in_use(model: nn.Module, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Run a network; names of the prunable layers that take part in its output, the output last.

    Empty where it returns no tensor, or one that depends on no prunable weight.

    Args:
        model: its forward pass may change its buffers.
        shape: shape of one example.
    """
    with _prepared(model):
        output = model(torch.randn(2, *shape))
    if not isinstance(output, Tensor):
        return ()
    layers, depths = prunable_layers(model), _depths(output)
    used = [name for name, layer in layers.items() if id(layer.weight) in depths]
    if not used:
        return ()
    # Of several layers as near to the output, the one declared last.
    last = min(reversed(used), key=lambda name: depths[id(layers[name].weight)])
    return *(name for name in used if name != last), last


def set_layers(model: nn.Module, names: tuple[str, ...]) -> None:
    """Make these layers, in this order, the model's prunable ones; without names, none changes."""
    if names:
        setattr(model, _ORDER, names)


def _depths(output: Tensor) -> dict[int, int]:
    """Operations between the output and each parameter that it depends on, by the `id`."""
    depths, seen = dict[int, int](), set[Any]()
    queue = deque([(output.grad_fn, 0)])
    while queue:
        node, depth = queue.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            depths[id(variable)] = depth
        queue.extend((following, depth + 1) for following, _ in node.next_functions)
    return depths


def _weights_of(module: nn.Module) -> Iterator[str]:
    """Names of the prunable weights that a module holds itself."""
    if isinstance(module, nn.Linear | nn.Bilinear | _ConvNd):
        yield "weight"
    elif isinstance(module, nn.MultiheadAttention | nn.RNNBase | nn.RNNCellBase):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter is not None and _OWN_NAME.fullmatch(name):
                yield name


# Positions


def shapes_and_positions(
    model: nn.Module, shape: tuple[int, ...]
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Weight shape and `Layer.positions` of every prunable layer, by name in the model's order.

    Padding counts as input, so a layer's forward FLOPs are 2 x kept x positions. A weight that is
    used several times counts each time.

    Args:
        shape: shape of one example, such as (3, 32, 32).
    """
    layers = prunable_layers(model)
    names = {id(layer.weight): name for name, layer in layers.items()}
    positions = dict.fromkeys(layers, 0)

    def hook(
        module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any], output: Any
    ) -> None:
        for weight, times in _positions(module, arguments, named, output):
            if id(weight) in names:
                positions[names[id(weight)]] += times

    hooks = [
        module.register_forward_hook(hook, with_kwargs=True)
        for module in model.modules()
        if any(True for _ in _weights_of(module))
    ]
    try:
        with torch.no_grad(), _prepared(model):
            model(torch.zeros(1, *shape))
    finally:
        for handle in hooks:
            handle.remove()
    return {name: (tuple(layer.weight.shape), positions[name]) for name, layer in layers.items()}


def _positions(
    module: Any, arguments: tuple[Any, ...], named: Mapping[str, Any], output: Any
) -> Iterator[tuple[Tensor, int]]:
    """Each weight of a module that was called on one example, and its number of positions."""
    if isinstance(module, nn.MultiheadAttention):
        given = dict(zip(("query", "key", "value"), arguments, strict=False)) | dict(named)
        query, key, value = (
            given[name].numel() // width
            for name, width in (("query", module.embed_dim), ("key", module.kdim),
                                ("value", module.vdim))
        )  # fmt: skip
        if module.in_proj_weight is not None:
            yield module.in_proj_weight, (query + key + value) // 3
        else:
            yield module.q_proj_weight, query
            yield module.k_proj_weight, key
            yield module.v_proj_weight, value
        yield module.out_proj.weight, query
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        x = arguments[0] if arguments else named["input"]
        steps = (x.data if isinstance(x, PackedSequence) else x).numel() // module.input_size
        yield from ((getattr(module, name), steps) for name in _weights_of(module))
    elif isinstance(module, _ConvTransposeNd):
        x = arguments[0] if arguments else named["input"]
        yield module.weight, x.numel() // module.weight.shape[0]
    else:
        yield module.weight, output.numel() // module.weight.shape[0]


@contextmanager
def _prepared(model: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, with seeded draws, and modules that call their parts."""
    training = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with seeded_draws(0):
            model.eval()
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in training.items():
            module.training = mode


# Weights and buffers, a shared one once


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights and buffers, in their own shapes, by name; a shared one has one name."""
    aliases = _aliases(model)
    return {name: value for name, value in model.state_dict().items() if name not in aliases}


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the weights and buffers of `state_of`.

    Raises:
        RuntimeError: names or shapes are not the model's.
    """
    shared = {alias: state[name] for alias, name in _aliases(model).items() if name in state}
    model.load_state_dict({**state, **shared})


def _aliases(model: nn.Module) -> dict[str, str]:
    """First name of each shared parameter and buffer, by its other names."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    every = [*model.named_parameters(remove_duplicate=False),
             *model.named_buffers(remove_duplicate=False)]  # fmt: skip
    for name, tensor in every:
        known = first.setdefault(id(tensor), name)
        if known != name:
            aliases[name] = known
    return aliases
