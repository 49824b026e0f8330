"""Tiny networks in double precision, and prunable networks made of them."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn

from lth_core import masks
from lth_core.masks import Mask
from lth_core.models.channels import channels_of
from lth_core.models.costs import costs_of
from lth_core.prune import SCORES, PrunableNetwork, prune
from lth_core.spec import PruneSpec, Pruning
from lth_core.spec.prune_base import OF_CHANNELS

OF_WEIGHTS = tuple(name for name in SCORES if name not in OF_CHANNELS)


def mlp(*sizes: int, seed: int = 0, bias: bool = True) -> nn.Sequential:
    """ReLU layers fc1, fc2, ... of normal weights and biases."""
    net = nn.Sequential()
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        net.add_module(f"fc{number}", nn.Linear(inputs, outputs, bias=bias))
        if number < len(sizes) - 1:
            net.add_module(f"relu{number}", nn.ReLU())
    return drawn(net, seed)


def conv_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch norm, a max-pool, and the output; for (2, 4, 4) images."""
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(2, 3, 3, padding=1))
    net.add_module("norm", nn.BatchNorm2d(3))
    net.add_module("relu1", nn.ReLU())
    net.add_module("pool", nn.MaxPool2d(2))
    net.add_module("conv2", nn.Conv2d(3, 4, 2))
    net.add_module("relu2", nn.ReLU())
    net.add_module("flatten", nn.Flatten())
    net.add_module("output", nn.Linear(4, 3))
    return drawn(net, seed)


def drawn(net: nn.Sequential, seed: int) -> nn.Sequential:
    """The network with every parameter normal, of either sign, and buffers of no special value."""
    stream = torch.Generator().manual_seed(seed)
    net.double().train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream) * 0.7)
        for name, buffer in net.named_buffers():
            if name.endswith(("mean", "var")):
                buffer.copy_(torch.rand(buffer.shape, generator=stream) + 0.5)
    return net


def batch(shape: tuple[int, ...], classes: int, n: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normal examples, and their classes."""
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=stream, dtype=torch.float64)
    return x, torch.randint(0, classes, (n,), generator=stream)


def sparse(model: nn.Module, density: float = 0.5, seed: int = 0) -> Mask:
    """A random mask."""
    stream = torch.Generator().manual_seed(seed)
    return {
        n: torch.rand(m.shape, generator=stream) < density for n, m in masks.ones(model).items()
    }


def prunable_network(
    model: nn.Module, x: Tensor, y: Tensor | None = None, mask: Mask | None = None,
    initial: nn.Module | None = None, seed: int = 0, spec: Pruning | None = None,
) -> PrunableNetwork:  # fmt: skip
    """The model as a trainer would hand it over: its copy's pruned weights are not 0 yet."""
    mask = mask or masks.ones(model)
    weights = {name: p.detach() for name, p in model.named_parameters() if name in mask}
    first = dict((initial or model).named_parameters())
    return PrunableNetwork(
        weights=masks.masked(weights, mask), mask=mask,
        initial={name: first[name].detach().clone() for name in mask},
        copy=lambda: copy.deepcopy(model).train(),
        batch=lambda: (x, torch.zeros(len(x), dtype=torch.long) if y is None else y), seed=seed,
        channels=lambda: channels_of(model, tuple(x.shape[1:])),
        costs=lambda: costs_of(copy.deepcopy(model).float(), tuple(x.shape[1:])),
        spec=spec or PruneSpec(),
    )  # fmt: skip


def pruned(network: PrunableNetwork, ties: int = 0, **fields: object) -> Mask:
    """The network's survivors; ``ties`` seeds the draws among equal scores."""
    spec = PruneSpec(**fields)  # type: ignore[arg-type]
    return prune(network, spec, torch.Generator().manual_seed(ties))


def close(a: Tensor, b: Tensor, rtol: float = 1e-9, atol: float = 0.0) -> bool:
    """torch.testing.assert_close takes 10 s to import what it needs."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=rtol, atol=atol)


def counts(mask: Mask) -> list[int]:
    """Weights kept in each layer."""
    return [int(m.sum()) for m in mask.values()]
