"""Logits of the networks against the papers' definitions, written out on the network's own state."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, linear, max_pool2d, relu
from torch.testing import assert_close

from lth_core import models
from lth_core.models.positions import shapes_and_positions
from lth_core.spec import ModelSpec

GREY, COLOUR = (1, 28, 28), (3, 32, 32)

VGG = {
    11: "CPCPCCPCCPCC",
    13: "CCPCCPCCPCCPCC",
    16: "CCPCCPCCCPCCCPCCC",
    19: "CCPCCPCCCCPCCCCPCCCC",
}
"""Convolutions and max-pools of Simonyan & Zisserman 2015, table 1: A, B, D and E. The last pool is
a mean for CIFAR, and the three linear layers are one (Frankle & Carbin 2019, appendix I.2)."""


def build(name: str, shape: tuple[int, ...], **fields: object) -> nn.Module:
    spec = ModelSpec(name=name, **fields)
    return models.build(spec, shape, 10, torch.Generator().manual_seed(0))


def drawn(model: nn.Module) -> nn.Module:
    """The model in double precision, its biases, scales and statistics of no special value."""
    stream = torch.Generator().manual_seed(1)
    for name, value in model.double().state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=stream) + 0.5)
        elif value.ndim == 1:
            value.copy_(torch.randn(value.shape, generator=stream))
    return model


def examples(shape: tuple[int, ...]) -> Tensor:
    stream = torch.Generator().manual_seed(2)
    return torch.randn(5, *shape, generator=stream, dtype=torch.float64)


@dataclass
class Plain:
    """Layers as functions of a state, whose running statistics batch norm moves in training."""

    state: dict[str, Tensor]
    training: bool

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        return conv2d(x, weight, bias, stride, padding)

    def norm(self, x: Tensor, name: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return batch_norm(x, *(self.state[f"{name}.{n}"] for n in names), self.training, 0.1, 1e-5)

    def fc(self, x: Tensor, name: str) -> Tensor:
        return linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])


def lenet_300_100(net: Plain, x: Tensor) -> Tensor:
    return net.fc(relu(net.fc(relu(net.fc(x.flatten(1), "fc1")), "fc2")), "output")


def lenet_5(net: Plain, x: Tensor) -> Tensor:
    """Caffe, examples/mnist/lenet_train_test.prototxt."""
    x = max_pool2d(net.conv(x, "conv1", padding=0), 2)
    x = max_pool2d(net.conv(x, "conv2", padding=0), 2)
    return net.fc(relu(net.fc(x.flatten(1), "fc1")), "output")


def conv(layers: str, net: Plain, x: Tensor) -> Tensor:
    """Frankle & Carbin 2019, figure 2."""
    for position, layer in enumerate(layers):
        number = layers[: position + 1].count(layer)
        x = max_pool2d(x, 2) if layer == "P" else relu(net.conv(x, f"conv{number}"))
    return net.fc(relu(net.fc(relu(net.fc(x.flatten(1), "fc1")), "fc2")), "output")


def vgg(layers: str, net: Plain, x: Tensor) -> Tensor:
    for position, layer in enumerate(layers):
        number = layers[: position + 1].count(layer)
        if layer == "P":
            x = max_pool2d(x, 2)
        else:
            x = relu(net.norm(net.conv(x, f"conv{number}"), f"norm{number}"))
    return net.fc(avg_pool2d(x, 2).flatten(1), "output")


def resnet(n: int, net: Plain, x: Tensor) -> Tensor:
    """He et al. 2016, section 4.2, with projections where the channels double (option B)."""
    x = relu(net.norm(net.conv(x, "stem"), "norm"))
    for stage in (1, 2, 3):
        for block in range(1, n + 1):
            at, doubles = f"stages.{stage}_{block}", stage > 1 and block == 1
            inner = relu(net.norm(net.conv(x, f"{at}.conv1", 2 if doubles else 1), f"{at}.norm1"))
            residual = net.norm(net.conv(inner, f"{at}.conv2"), f"{at}.norm2")
            if doubles:
                x = net.norm(net.conv(x, f"{at}.shortcut.conv", 2, 0), f"{at}.shortcut.norm")
            x = relu(residual + x)
    return net.fc(avg_pool2d(x, 8).flatten(1), "output")


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("name", "shape", "forward"),
    [
        ("lenet-300-100", GREY, lenet_300_100),
        ("lenet-5", GREY, lenet_5),
        ("conv-2", COLOUR, partial(conv, "CCP")),
        ("conv-4", COLOUR, partial(conv, "CCPCCP")),
        ("conv-6", COLOUR, partial(conv, "CCPCCPCCP")),
        *((f"vgg-{depth}", COLOUR, partial(vgg, layers)) for depth, layers in VGG.items()),
        *((f"resnet-{6 * n + 2}", COLOUR, partial(resnet, n)) for n in (1, 2, 3)),
    ],
)
def test_network_computes_what_its_paper_defines(
    name: str, shape: tuple[int, ...], forward: Callable[[Plain, Tensor], Tensor], training: bool
) -> None:
    model, x = drawn(build(name, shape, width=0.25)).train(training), examples(shape)
    state = {n: v.clone() for n, v in model.state_dict().items() if "num_batches" not in n}
    assert_close(model(x), forward(Plain(state, training), x))
    after = model.state_dict()
    assert_close({n: after[n] for n in state}, state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-18", "resnet-50", "mobilenet-v2"])
def test_cifar_stem_is_torchvisions_network_but_halves_images_less_often(name: str) -> None:
    import torchvision.models

    ours, x = drawn(build(name, (3, 16, 16))), examples((3, 16, 16))
    known = name.replace("-", "_" if "v2" in name else "")
    theirs = torchvision.models.get_model(known, num_classes=10)
    if name == "mobilenet-v2":
        theirs.features[0][0].stride = theirs.features[2].conv[1][0].stride = (1, 1)
    else:
        theirs.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        theirs.maxpool = nn.Identity()
    theirs.double().load_state_dict(ours.state_dict())
    assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize(
    ("name", "published"), [("vgg-16", 3.13e8), ("resnet-56", 1.25e8), ("resnet-110", 2.53e8)]
)
@pytest.mark.slow
def test_multiply_adds_are_the_published_ones(name: str, published: float) -> None:
    """Li et al. 2017, table 1: a VGG-16 with one more linear layer, shortcuts of no parameters."""
    layers = shapes_and_positions(build(name, COLOUR), COLOUR).values()
    ours = sum(prod(weight) * positions for weight, positions in layers)
    assert ours == pytest.approx(published, rel=0.01)
