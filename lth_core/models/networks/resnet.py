"""ResNets for CIFAR (He et al. 2016, section 4.2), with 1x1 convolutions on the shortcuts."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lth_core.errors import SpecError
from lth_core.models.scale import check_images, check_unused, scaled
from lth_core.spec import ModelSpec


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.add_module("conv", nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.add_module("norm", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(b, outputs, height / stride, width / stride) from (b, inputs, height, width)."""
        inner = self.norm1(self.conv1(x)).relu()
        out: Tensor = (self.norm2(self.conv2(inner)) + self.shortcut(x)).relu()
        return out


class ResNet(nn.Module):
    """A 3x3 stem, three stages of blocks (width, 2 width, 4 width channels), mean, linear.

    Args:
        channels: channels of an image.
        width: channels of the stem and the first stage.
        blocks: blocks of each stage.
    """

    def __init__(self, channels: int, width: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stages = nn.Sequential()
        inputs = width
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                outputs = width * 2**stage
                self.stages.add_module(f"{stage + 1}_{block + 1}", Block(inputs, outputs, stride))
                inputs = outputs
        self.output = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes) from images (b, channels, height, width)."""
        hidden = self.stages(self.norm(self.stem(x)).relu())
        logits: Tensor = self.output(hidden.mean((2, 3)))
        return logits


def resnet(layers: int) -> Callable[[ModelSpec, tuple[int, ...], int], nn.Module]:
    """Builder of ResNet-N with N = ``layers``; ``spec.depth`` overrides it."""

    def build(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
        check_unused(spec, "stem", "dropout", "widths")
        depth = spec.depth or layers
        if depth < 8 or (depth - 2) % 6:
            raise SpecError("model.depth", "must be 6n+2, at least 8", depth)
        check_images(spec, shape)
        return ResNet(shape[0], scaled(16, spec.width), (depth - 2) // 6, classes)

    return build
