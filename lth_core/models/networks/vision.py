"""torchvision's networks, with its parameter names so that its weights fit, and a CIFAR stem."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lth_core.models.scale import check_images, check_unused
from lth_core.spec import ModelSpec

MOBILENET = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and stride of each stage (Sandler et al. 2018, table 2)."""


def vision_resnet(layers: int) -> Callable[[ModelSpec, tuple[int, ...], int], nn.Module]:
    """Builder of torchvision's ResNet-N with N = ``layers`` (He et al. 2016, table 1).

    The CIFAR stem is a 3x3 convolution of stride 1 without max-pooling, in place of 7x7, stride 2
    and max-pooling: 32 pixels a side become 4 before the mean, not 1.
    """

    def build(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
        from torchvision import models

        check_unused(spec, "width", "depth", "dropout", "widths")
        check_images(spec, shape)
        model: nn.Module = getattr(models, f"resnet{layers}")(num_classes=classes)
        if spec.stem == "cifar":
            model.conv1 = _initialized(nn.Conv2d(shape[0], 64, 3, padding=1, bias=False))
            model.maxpool = nn.Identity()
        elif shape[0] != 3:
            model.conv1 = _initialized(nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False))
        return model

    return build


def mobilenet_v2(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """torchvision's MobileNet-V2 (Sandler et al. 2018).

    The CIFAR stem and the first block of 24 channels have stride 1, as is usual for CIFAR:
    32 pixels a side become 4 before the mean, not 1.
    """
    from torchvision import models

    check_unused(spec, "depth", "widths")
    check_images(spec, shape)
    cifar = spec.stem == "cifar"
    stages = [list(stage) for stage in MOBILENET]
    if cifar:
        stages[1][3] = 1
    model: nn.Module = models.mobilenet_v2(
        num_classes=classes, width_mult=spec.width, dropout=spec.dropout,
        inverted_residual_setting=stages,
    )  # fmt: skip
    if cifar or shape[0] != 3:
        first, stride = model.get_submodule("features.0.0"), 1 if cifar else 2
        assert isinstance(first, nn.Conv2d)
        stem = nn.Conv2d(shape[0], first.out_channels, 3, stride, padding=1, bias=False)
        model.set_submodule("features.0.0", _initialized(stem))
    return model


def _initialized(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution, initialized as torchvision's are, so that ``as_built`` has one meaning."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
