"""VGG for CIFAR: batch norm and a single linear layer (Liu et al. 2019, Frankle & Carbin 2019)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lth_core.errors import SpecError
from lth_core.models.scale import check_images, check_unused, scaled
from lth_core.spec import ModelSpec

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five groups of 3x3 convolutions."""

GROUPS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each group, by the number in the name (Simonyan & Zisserman 2015, table 1)."""


def vgg(layers: int) -> Callable[[ModelSpec, tuple[int, ...], int], nn.Module]:
    """Builder of VGG-N with N = ``layers``; ``spec.depth`` overrides it."""

    def build(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_unused(spec, "stem", "widths")
        depth = spec.depth or layers
        if depth not in GROUPS:
            raise SpecError("model.depth", "is not the depth of a VGG", depth, map(str, GROUPS))
        check_images(spec, shape, 2 ** (len(WIDTHS) - 1))
        return _vgg(GROUPS[depth], spec, shape[0], classes)

    return build


def _vgg(groups: tuple[int, ...], spec: ModelSpec, channels: int, classes: int) -> nn.Module:
    """Groups of convolutions, max-pooled between groups, then a mean, dropout and a linear layer.

    The layers are those of appendix I.2 of Frankle & Carbin 2019.
    """
    model, number = nn.Sequential(), 0
    for group, (convolutions, width) in enumerate(zip(groups, WIDTHS, strict=True), start=1):
        if group > 1:
            model.add_module(f"pool{group - 1}", nn.MaxPool2d(2))
        out = scaled(width, spec.width)
        for _ in range(convolutions):
            number += 1
            model.add_module(f"conv{number}", nn.Conv2d(channels, out, 3, padding=1))
            model.add_module(f"norm{number}", nn.BatchNorm2d(out))
            model.add_module(f"relu{number}", nn.ReLU())
            channels = out
    model.add_module("mean", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("dropout", nn.Dropout(spec.dropout))
    model.add_module("output", nn.Linear(channels, classes))
    return model
