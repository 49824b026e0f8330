"""Fully connected networks, among them LeNet-300-100 (LeCun et al. 1998)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lth_core.models.scale import check_unused, scaled
from lth_core.spec import ModelSpec


class WithConstant(nn.Linear):
    """A linear layer whose biases are weights of one more input, the constant 1.

    Biases are then scored and pruned with the other weights. The weight is (outputs, inputs + 1).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs + 1, outputs, bias=False)
        plain = nn.Linear(inputs, outputs)  # PyTorch's own initialization
        with torch.no_grad():
            self.weight.copy_(torch.cat([plain.weight, plain.bias[:, None]], 1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, outputs) from (b, inputs)."""
        return super().forward(pad(x, (0, 1), value=1.0))


def mlp(
    spec: ModelSpec,
    shape: tuple[int, ...],
    classes: int,
    linear: Callable[[int, int], nn.Linear] = nn.Linear,
) -> nn.Module:
    """Hidden layers of ``widths`` units with ReLU and dropout; ``depth`` repeats a single width."""
    check_unused(spec, "stem")
    widths = spec.widths * spec.depth if spec.depth else spec.widths
    sizes = [prod(shape), *(scaled(width, spec.width) for width in widths)]
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers[f"fc{number}"] = linear(inputs, outputs)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"dropout{number}"] = nn.Dropout(spec.dropout)
    layers["output"] = linear(sizes[-1], classes)
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def mlp_constant(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """An ``mlp`` with biases that are prunable weights, as Greydanus & Kobak 2024 prune them."""
    return mlp(spec, shape, classes, WithConstant)


def lenet_300_100(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """LeNet-300-100: two hidden layers, 266,610 parameters on MNIST."""
    check_unused(spec, "depth", "widths")
    return mlp(replace(spec, widths=(300, 100)), shape, classes)
