"""Networks by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from lth_core.errors import SpecError
from lth_core.models.channels import Channels, channels_of
from lth_core.models.check import checked_copy
from lth_core.models.dropout import replace_dropout
from lth_core.models.gates import add_gates, gated
from lth_core.models.init import initialize, initialize_norms
from lth_core.models.layers import set_use, use_of
from lth_core.models.networks.conv import conv
from lth_core.models.networks.lenet import lenet_5
from lth_core.models.networks.lstm import lstm
from lth_core.models.networks.mlp import lenet_300_100, mlp, mlp_constant
from lth_core.models.networks.resnet import resnet
from lth_core.models.networks.vgg import vgg
from lth_core.models.networks.vision import mobilenet_v2, vision_resnet
from lth_core.models.networks.vit import vit_tiny
from lth_core.models.positions import shapes_and_positions
from lth_core.plugins import errors_as_spec_errors, load_factory, source_fingerprint
from lth_core.seeds import generator, seeded_draws
from lth_core.spec import ModelSpec

__all__ = ["MODELS", "Builder", "build", "fingerprint", "may_draw", "warn_of_changed_code"]

Builder = Callable[[ModelSpec, tuple[int, ...], int], nn.Module]
"""(spec, shape of one example, number of classes) -> network."""

MODELS: dict[str, tuple[Builder, str]] = {
    "mlp": (mlp, "fully connected, any widths and depth (Rumelhart et al. 1986)"),
    "mlp-constant": (
        mlp_constant,
        "mlp whose biases are weights of a constant input, pruned with the others "
        "(Greydanus & Kobak 2024)",
    ),
    "lenet-300-100": (
        lenet_300_100,
        "fully connected 300-100, 267K parameters on MNIST (LeCun et al. 1998)",
    ),
    "lenet-5": (
        lenet_5,
        "2 convolutions, 500 units, 431K parameters on MNIST (LeCun et al. 1998, Caffe's)",
    ),
    "conv-2": (conv(2), "2 convolutions, 4.30M parameters on CIFAR-10 (Frankle & Carbin 2019)"),
    "conv-4": (conv(4), "4 convolutions, 2.43M parameters on CIFAR-10 (Frankle & Carbin 2019)"),
    "conv-6": (
        conv(6),
        "6 convolutions, 2.26M parameters on CIFAR-10 (Frankle & Carbin 2019, who print 1.7M, "
        "which does not fit the layers that they list)",
    ),
    "vgg-11": (vgg(11), "CIFAR VGG, batch norm, 9.23M parameters (Simonyan & Zisserman 2015)"),
    "vgg-13": (vgg(13), "CIFAR VGG, batch norm, 9.42M parameters (Simonyan & Zisserman 2015)"),
    "vgg-16": (vgg(16), "CIFAR VGG, batch norm, 14.7M parameters (Simonyan & Zisserman 2015)"),
    "vgg-19": (
        vgg(19),
        "CIFAR VGG, batch norm, 20.0M parameters (Frankle & Carbin 2019, section 4)",
    ),
    "resnet-8": (resnet(8), "CIFAR ResNet, 78.0K parameters (He et al. 2016, n = 1)"),
    "resnet-14": (resnet(14), "CIFAR ResNet, 175K parameters (He et al. 2016, n = 2)"),
    "resnet-20": (resnet(20), "CIFAR ResNet, 274K with its running statistics (He et al. 2016)"),
    "resnet-32": (resnet(32), "CIFAR ResNet, 467K parameters (He et al. 2016)"),
    "resnet-44": (resnet(44), "CIFAR ResNet, 661K parameters (He et al. 2016)"),
    "resnet-56": (resnet(56), "CIFAR ResNet, 856K parameters (He et al. 2016)"),
    "resnet-110": (resnet(110), "CIFAR ResNet, 1.73M parameters (He et al. 2016)"),
    "resnet-18": (
        vision_resnet(18),
        "torchvision's, 11.2M parameters with the CIFAR stem (He et al. 2016)",
    ),
    "resnet-50": (
        vision_resnet(50),
        "torchvision's, 25.6M parameters with the ImageNet stem (He et al. 2016)",
    ),
    "mobilenet-v2": (
        mobilenet_v2,
        "torchvision's, 3.50M parameters for ImageNet (Sandler et al. 2018)",
    ),
    "vit-tiny": (
        vit_tiny,
        "vision transformer, patches of 4, 4 blocks of 64, 142K parameters on CIFAR-10 "
        "(after Dosovitskiy et al. 2021)",
    ),
    "lstm": (
        lstm,
        "LSTM over the rows, 64 units, 19.6K parameters on images of 8 x 8 "
        "(Hochreiter & Schmidhuber 1997)",
    ),
}
"""Builder of each network, and its description for `lth list models`, by name."""


def build(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, generator: torch.Generator
) -> nn.Module:
    """A network on the CPU, its weights drawn from ``generator``.

    Args:
        shape: shape of one example, such as (3, 32, 32).
        classes: number of outputs.

    Raises:
        SpecError: the name is not known, the network does not fit the examples or the memory, it
            lacks the batch norm that model.norm_init draws, or a user's factory fails or returns
            something else.
    """
    builder = _builder(spec)
    # torch's layers, and a user's factory, draw from the global generators when they are created.
    with seeded_draws(generator.initial_seed()):
        torch.random.set_rng_state(generator.get_state())
        with errors_as_spec_errors("model.name", f"cannot be built for shape {shape}", spec.name):
            model = builder(spec, shape, classes)
        generator.set_state(torch.random.get_rng_state())
    if not isinstance(model, nn.Module):
        rule = f"must return a torch.nn.Module, not {type(model).__name__}"
        raise SpecError("model.name", rule, spec.name)
    replace_dropout(model)
    if spec.name not in MODELS:  # of ours, all layers take part and the output is declared last
        copied = checked_copy(model, spec.name)
        with errors_as_spec_errors("model.name", f"cannot be run on shape {shape}", spec.name):
            set_use(model, use_of(copied, shape))
    initialize(model, spec.init, generator)
    initialize_norms(model, spec, generator)  # last, so that weights do not depend on norm_init
    if spec.gates:
        add_gates(model, spec.name, shape)
    return model


@lru_cache(maxsize=8)
def template(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network for its structure: names, shapes, layers. Its weights belong to no seed."""
    return build(spec, shape, classes, generator(0, "template"))


@lru_cache(maxsize=8)
def positions(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, include: tuple[str, ...] = ()
) -> dict[str, tuple[tuple[int, ...], int]]:
    """`shapes_and_positions` of a network."""
    return shapes_and_positions(template(spec, shape, classes), shape, include)


@lru_cache(maxsize=8)
def removable_channels(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> Channels:
    """Removable channels of a network; where it has gates, those with a gate."""
    found = channels_of(template(replace(spec, gates=False), shape, classes), shape)
    return gated(found, template(spec, shape, classes)) if spec.gates else found


def may_draw(spec: ModelSpec) -> bool:
    """Whether a network may draw from the global generators when it is called."""
    return spec.name not in MODELS


def fingerprint(spec: ModelSpec) -> str:
    """Digest of the source of a user's own model; empty for a built-in one.

    Raises:
        SpecError: the name is not known.
    """
    _builder(spec)
    return "" if spec.name in MODELS else source_fingerprint("model.name", spec.name)


def warn_of_changed_code(spec: ModelSpec) -> None:
    """Warn where a user's own network is not the one of a resolved spec."""
    if spec.fingerprint and fingerprint(spec) != spec.fingerprint:
        warnings.warn(
            f"model.name: the code of {spec.name} has changed since this file was written, so the "
            "network may compute something else",
            stacklevel=3,
        )


def _builder(spec: ModelSpec) -> Builder:
    if spec.name in MODELS:
        return MODELS[spec.name][0]
    if ":" not in spec.name:
        raise SpecError("model.name", "is not a known model", spec.name,
                        (*MODELS, "package.module:factory"))  # fmt: skip
    return load_factory("model.name", spec.name)
