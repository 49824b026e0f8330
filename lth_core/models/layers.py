"""A network's prunable layers: their weights' shapes, positions and FLOPs."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from lth_core.seeds import seeded_draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A prunable layer under a mask."""

    shape: tuple[int, ...]
    """Shape of the layer's weight, (out, in, ...); (entries, size) of an embedding."""
    kept: int
    """Weights that the mask keeps."""
    positions: int
    """Multiplications by each weight for one example."""
    kept_outputs: int | None = None
    """Rows of the weight, outputs of a convolution or linear layer, with a kept weight."""

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
    convolutions are (in, out, ...) and those of embeddings (entries, size), as torch stores them.
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


def prunable_layers(model: nn.Module, include: Sequence[str] = ()) -> dict[str, PrunableLayer]:
    """Layers whose weight can be pruned, by name, in the model's order; the last is the output.

    These are linear, bilinear, convolution, attention and recurrent layers, after the embeddings
    that are included; normalization parameters and biases are not prunable. A weight that several
    modules share is one layer, under its first name, and no embedding if one of them multiplies by
    it. After `set_use` they are the layers that take part in the output, and the last one makes it;
    before, the output is the layer that is declared last.

    Args:
        include: names or patterns of embeddings; the names of other layers have no effect.
    """
    found = _layers(model, weights_of)
    embeddings = {
        name: layer
        for name, layer in _layers(model, _table_of).items()
        if name not in found and any(fnmatchcase(name, pattern) for pattern in include)
    }
    found = embeddings | found
    use: Use | None = getattr(model, _USE, None)
    if use is None or not use.depths:
        return found
    used = [name for name in found if name in use.depths]
    # Of several layers as near to the output, the one declared last.
    last = min(reversed(used), key=use.depths.__getitem__, default=None)
    return {name: found[name] for name in sorted(used, key=lambda name: name == last)}


def _layers(
    model: nn.Module, weights_of: Callable[[nn.Module], Iterable[str]]
) -> dict[str, PrunableLayer]:
    """Layers of the weights that a function names in each module."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, PrunableLayer] = {}
    for module in model.modules():
        for attribute in weights_of(module):
            weight = getattr(module, attribute)
            if id(weight) in names:  # else it is computed from other parameters
                found.setdefault(layer_of(names[id(weight)]), PrunableLayer(module, weight))
    return found


def layers_without_units(model: nn.Module, include: Sequence[str] = ()) -> list[str]:
    """Names of the prunable layers whose weight is not one row for each output unit."""
    plain = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    layers = prunable_layers(model, include).items()
    return [name for name, layer in layers if not isinstance(layer.module, plain)]


# Use of a user's network: which layers take part, and which examples it takes


class Use(NamedTuple):
    """Use of a network's layers in one run, and the kind of examples on which it runs."""

    depths: dict[str, int]
    """Operations between the output and each layer that takes part in it, embeddings too; empty
    where the network returns no tensor, or one that depends on no such layer."""
    takes_ids: bool
    """Whether it fails on noise and runs on ones, as networks do that take token ids."""


_USE = "_lth_use"


def use_of(model: nn.Module, shape: tuple[int, ...], seed: int = 0) -> Use:
    """Run a network on two made-up examples.

    Args:
        model: its forward pass may change its buffers.
        shape: shape of one example.
        seed: seed of the examples.
    """
    takes_ids, noise = False, torch.Generator().manual_seed(seed)
    with evaluation_mode(model):
        try:
            output = model(torch.randn(2, *shape, generator=noise))
        except (IndexError, RuntimeError):  # torch's errors for ids that are negative or too large
            output, takes_ids = model(torch.ones(2, *shape)), True
    depths = _depths(output) if isinstance(output, Tensor) else {}
    layers = prunable_layers(model, ("*",))
    used = {name: depths[id(w)] for name, (_, w) in layers.items() if id(w) in depths}
    return Use(used, takes_ids)


def set_use(model: nn.Module, use: Use) -> None:
    """Make the layers that take part the model's prunable ones; where none does, none changes."""
    setattr(model, _USE, use)


def made_up_examples(model: nn.Module, count: int, shape: tuple[int, ...]) -> Tensor:
    """Examples (count, *shape) float32 on which a network runs: noise, or ones where it takes ids.

    Noise is drawn from torch's global generator.
    """
    draw = torch.ones if takes_ids(model) else torch.randn
    return draw(count, *shape)


def varied_examples(model: nn.Module, count: int, shape: tuple[int, ...]) -> Tensor:
    """As `made_up_examples`, but ids are 0 or 1 at random: code may treat 0, often the padding, in
    another way, and fail on examples of it alone."""
    if takes_ids(model):
        return torch.randint(0, 2, (count, *shape)).float()
    return made_up_examples(model, count, shape)


def takes_ids(model: nn.Module) -> bool:
    """Whether a network fails on noise and runs on ones, as networks do that take token ids."""
    use: Use | None = getattr(model, _USE, None)
    return use is not None and use.takes_ids


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


def weights_of(module: nn.Module) -> Iterator[str]:
    """Names of the prunable weights that a module holds itself."""
    if isinstance(module, nn.Linear | nn.Bilinear | _ConvNd):
        yield "weight"
    elif isinstance(module, nn.MultiheadAttention | nn.RNNBase | nn.RNNCellBase):
        for name, parameter in module.named_parameters(recurse=False):
            if parameter is not None and _OWN_NAME.fullmatch(name):
                yield name


def _table_of(module: nn.Module) -> Iterator[str]:
    """Name of the weight of an embedding."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        yield "weight"


def norm_scales(model: nn.Module) -> list[nn.Parameter]:
    """The scales of a network's batch norms, (channels,) each."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [norm.weight for norm in norms if norm.weight is not None]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
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


def train_norms_alone(model: nn.Module) -> None:
    """Put batch and instance norms in training mode, and all other modules in evaluation mode.

    So nothing is dropped, whether by a module, within one, or by a function. A user's module that
    keeps running statistics (buffers whose names begin with `running_`) counts as a norm.
    """
    model.eval()
    for module in model.modules():
        names = [name for name, _ in module.named_buffers(recurse=False)]
        module.training = isinstance(module, _NormBase) or any(
            name.startswith("running_") for name in names
        )


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
