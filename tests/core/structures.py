"""Networks of each family with random structures, for tests of channels and of smaller networks."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lth_core import masks, models
from lth_core.masks import Mask
from lth_core.models.channels import Channels, Kept, masks_of
from lth_core.spec import ModelSpec

GREY, COLOUR = (1, 8, 8), (3, 16, 16)

FAMILIES: dict[str, tuple[ModelSpec, tuple[int, ...]]] = {
    "mlp": (ModelSpec(name="mlp", widths=(12, 8)), GREY),
    "mlp-constant": (ModelSpec(name="mlp-constant", widths=(12, 8)), GREY),
    "lenet-5": (ModelSpec(name="lenet-5", width=0.2), (1, 16, 16)),
    "conv-4": (ModelSpec(name="conv-4", width=0.1), COLOUR),
    "vgg-11": (ModelSpec(name="vgg-11", width=0.1), COLOUR),
    "resnet-14": (ModelSpec(name="resnet-14", width=0.5), (3, 8, 8)),
    "resnet-18": (ModelSpec(name="resnet-18"), (3, 8, 8)),
    "resnet-50": (ModelSpec(name="resnet-50"), (3, 8, 8)),
    "mobilenet-v2": (ModelSpec(name="mobilenet-v2", width=0.25), (3, 8, 8)),
    "vit-tiny": (ModelSpec(name="vit-tiny", width=0.5, depth=2), (3, 8, 8)),
    "lstm": (ModelSpec(name="lstm", width=0.2), GREY),
}
"""Narrow networks and the shape of their examples."""


def by_duration(names: Iterable[str], fast: Sequence[str] = ()) -> list[Any]:
    """Families for a parametrized test: torchvision's networks in `make long`, and others that are
    not fast out of `make fast`."""
    of_torchvision = ("resnet-18", "resnet-50", "mobilenet-v2")
    slow = {n: pytest.mark.long if n in of_torchvision else pytest.mark.slow for n in names}
    return [n if n in fast else pytest.param(n, marks=slow[n]) for n in names]


def built(name: str, seed: int = 0) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of a family, and the shape of its examples."""
    spec, shape = FAMILIES[name]
    model = models.build(spec, shape, 10, torch.Generator().manual_seed(seed))
    return stirred(model, seed), shape


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """The network with biases, norms and running statistics as training might leave them."""
    stream = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith(("bias", "running_mean")):
            tensor.data.normal_(0, 0.3, generator=stream)
        elif name.endswith("running_var"):
            tensor.data.uniform_(0.5, 2, generator=stream)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=stream)
    return model


def random_kept(channels: Channels, seed: int, share: float = 0.5) -> Kept:
    """About a share of the channels of each group, at least one."""
    stream = torch.Generator().manual_seed(seed)
    kept = {n: torch.rand(group.size, generator=stream) < share for n, group in channels.items()}
    for each in kept.values():
        each[int(torch.randint(len(each), (), generator=stream))] = True
    return kept


def structured(model: nn.Module, channels: Channels, kept: Kept) -> dict[str, Tensor]:
    """Mask of weights, biases and norms: all that belongs to a removed channel is pruned."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return {**masks.ones(model), **masks_of(channels, kept, shapes)}


def pruned(model: nn.Module, mask: Mask) -> nn.Module:
    """A copy with its pruned parameters set to 0."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if name in mask:
            parameter.data.masked_fill_(~mask[name], 0)
    return model


def difference(one: nn.Module, other: nn.Module, shape: tuple[int, ...]) -> float:
    """Largest difference of two networks' outputs on random examples, in evaluation mode."""
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return float((one.eval()(x) - other.eval()(x)).abs().max())


def sizes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
