"""Conv-2, Conv-4, Conv-6: small VGG-like networks (Frankle & Carbin 2019, figure 2)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lth_core.errors import SpecError
from lth_core.models.scale import check_images, check_unused, scaled
from lth_core.spec import ModelSpec


def conv(layers: int) -> Callable[[ModelSpec, tuple[int, ...], int], nn.Module]:
    """Builder of Conv-N with N = ``layers``; ``spec.depth`` overrides it."""

    def build(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _conv(spec.depth or layers, spec, shape, classes)

    return build


def _conv(depth: int, spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Pairs of 3x3 convolutions (64, 128, 256 ... channels), each followed by max-pooling, then two
    hidden linear layers of 256 units, each followed by dropout."""
    check_unused(spec, "stem")
    check_images(spec, shape, 2 ** (depth // 2))
    if depth % 2:
        raise SpecError("model.depth", "must be even: convolutions come in pairs", depth)
    channels, side = shape[0], list(shape[1:])
    model = nn.Sequential()
    for number in range(1, depth + 1):
        out = scaled(64 * 2 ** ((number - 1) // 2), spec.width)
        model.add_module(f"conv{number}", nn.Conv2d(channels, out, 3, padding=1))
        model.add_module(f"conv_relu{number}", nn.ReLU())
        channels = out
        if number % 2 == 0:
            model.add_module(f"pool{number // 2}", nn.MaxPool2d(2))
            side = [pixels // 2 for pixels in side]
    model.add_module("flatten", nn.Flatten())
    hidden = scaled(256, spec.width)
    for number, inputs in enumerate((channels * side[0] * side[1], hidden), start=1):
        model.add_module(f"fc{number}", nn.Linear(inputs, hidden))
        model.add_module(f"fc_relu{number}", nn.ReLU())
        model.add_module(f"dropout{number}", nn.Dropout(spec.dropout))
    model.add_module("output", nn.Linear(hidden, classes))
    return model
