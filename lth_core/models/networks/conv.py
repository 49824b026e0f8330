"""Conv-2, Conv-4, Conv-6: small VGG-like networks (Frankle & Carbin 2019, figure 2).

Weights on CIFAR-10, biases not counted, of all layers / of convolutions::

            printed in figure 2    of the layers in figure 2
    Conv-2  4.3M / 38K             4,300,992 / 38,592
    Conv-4  2.4M / 260K            2,425,024 / 259,776
    Conv-6  1.7M / 1.1M            2,261,184 / 1,144,512

The printed total of Conv-6 does not fit its layers: beside the convolutions they have 4 x 4 x 256 x
256 = 1,048,576 weights behind the last pooling, 256 x 256 and 256 x 10. With half as many inputs
behind the last pooling, 4 x 4 x 128, the total would be 1,736,896. Where the paper gives shares of
layers, they follow the printed total (35% of the weights in linear layers, appendix H.6; here 49%).
The densities of its tickets fit the layers better: after ten prunings it has 15.1%, these layers
15.3%, and 1,736,896 weights would have 16.7%; after seven 26.4%, 26.6% and 28.3%.
"""

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
    check_unused(spec, "stem", "widths")
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
