"""Fully connected networks; LeNet-300-100 is the two-hidden-layer one (LeCun et al. 1998)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod

from torch import nn

from lth_core.models.scale import refuse, scaled
from lth_core.spec import ModelSpec


def mlp(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """ReLU layers of ``widths`` units, dropout after each; ``depth`` repeats a single width."""
    refuse(spec, "stem")
    widths = spec.widths * spec.depth if spec.depth else spec.widths
    sizes = [prod(shape), *(scaled(width, spec.width) for width in widths)]
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"dropout{number}"] = nn.Dropout(spec.dropout)
    layers["output"] = nn.Linear(sizes[-1], classes)
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


def lenet_300_100(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The paper's fully connected network: 266,610 parameters on MNIST."""
    refuse(spec, "depth")
    return mlp(replace(spec, widths=(300, 100)), shape, classes)
