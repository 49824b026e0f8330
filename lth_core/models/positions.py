"""Positions of weights: how often a network multiplies by each for one example."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode

from lth_core.models.layers import evaluation_mode, made_up_examples, prunable_layers, weights_of

aten = torch.ops.aten


def shapes_and_positions(
    model: nn.Module, shape: tuple[int, ...], include: Sequence[str] = ()
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Weight shape and `Layer.positions` of every prunable layer, by name in the model's order.

    Padding counts as input, so a layer's forward FLOPs are 2 x kept x positions. A weight that is
    used several times counts each time, also where no module but a function multiplies by it. A
    lookup in an embedding multiplies nothing.

    Args:
        shape: shape of one example, such as (3, 32, 32).
        include: embeddings, as in `prunable_layers`.
    """
    model = copy.deepcopy(model).cpu()  # the run may change what a user's network keeps
    layers = prunable_layers(model, include)
    names = {id(layer.weight): name for name, layer in layers.items()}
    positions = dict.fromkeys(layers, 0)

    outside = _ProductsOutsideModules({name: layer.weight for name, layer in layers.items()})

    def enter(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        outside.depth += 1

    def leave(
        module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any], output: Any
    ) -> None:
        outside.depth -= 1
        for weight, times in _positions(module, arguments, named, output):
            if id(weight) in names:
                positions[names[id(weight)]] += times

    for module in model.modules():
        if any(True for _ in weights_of(module)):
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave, with_kwargs=True)
    with torch.no_grad(), evaluation_mode(model), outside:
        model(made_up_examples(model, 1, shape))
    for name, times in outside.positions.items():
        positions[name] += times
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
        yield from ((getattr(module, name), steps) for name in weights_of(module))
    elif isinstance(module, _ConvTransposeNd):
        x = arguments[0] if arguments else named["input"]
        yield module.weight, x.numel() // module.weight.shape[0]
    else:
        yield module.weight, output.numel() // module.weight.shape[0]


class _ProductsOutsideModules(TorchDispatchMode):
    """Counts the positions of weights that a user's code multiplies by without their modules, as
    `F.linear(x, self.other.weight)` does.

    Attributes:
        depth: number of modules with weights that are being called; their products do not count.
        positions: by name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {_memory(weight): name for name, weight in weights.items()}
        self.depth, self.positions = 0, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.depth:
            return output
        if func is aten.convolution.default:
            x, weight, transposed = args[0], args[1], args[6]
            if name := self._names.get(_memory(weight)):
                self.positions[name] += (x if transposed else output).numel() // len(weight)
        elif func in (aten.mm.default, aten.addmm.default):
            first, second = args[-2:]
            for matrix, times in ((first, second.shape[1]), (second, first.shape[0])):
                if name := self._names.get(_memory(matrix)):
                    self.positions[name] += times
        return output


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Address and number of values, which a view of all of a tensor shares, as its transpose."""
    return tensor.untyped_storage().data_ptr(), tensor.numel()
