"""Networks of a user's that draw from global generators in training, each in its own way."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_core import ModelSpec

Shape = tuple[int, ...]


class Drawing(nn.Module):
    """Two linear layers with a draw between them."""

    def __init__(
        self, between: Callable[["Drawing", Tensor], Tensor], layer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)
        self.layer, self._between = layer or nn.Identity(), between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self._between(self, functional.relu(self.first(x.flatten(1)))))


def _through(layer: nn.Module) -> Drawing:
    return Drawing(lambda net, x: net.layer(x), layer)


def functional_dropout(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    return Drawing(lambda net, x: functional.dropout(x, 0.5, net.training))


def noise(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    return Drawing(lambda net, x: x + 0.1 * torch.randn_like(x))


def shared_dropout(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    return Drawing(lambda net, x: net.layer(net.layer(x)), nn.Dropout(0.3))


def alpha_dropout(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    return _through(nn.AlphaDropout(0.5))


def channel_dropout(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    return Drawing(lambda net, x: net.layer(x.view(-1, 4, 2, 2)).flatten(1), nn.Dropout2d(0.5))


def rrelu(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    return _through(nn.RReLU())


def stochastic_depth(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    from torchvision.ops import StochasticDepth  # takes two seconds to import

    return _through(StochasticDepth(0.5, "row"))


def lstm(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    layer = nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True)
    return Drawing(lambda net, x: net.layer(x.view(-1, 4, 4))[0].flatten(1), layer)


def attention(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    layer = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)

    def between(net: Drawing, x: Tensor) -> Tensor:
        x = x.view(-1, 4, 4)
        return net.layer(x, x, x, need_weights=False)[0].flatten(1)

    return Drawing(between, layer)


def python_draws(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    return Drawing(lambda net, x: x * (random.random() + float(np.random.rand())))


NETS = (
    "functional_dropout", "noise", "shared_dropout", "alpha_dropout", "channel_dropout", "rrelu",
    "stochastic_depth", "lstm", "attention", "python_draws",
)  # fmt: skip


def of_numpy(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    layer = nn.Linear(64, 10)
    layer.weight.data = torch.from_numpy(np.random.randn(10, 64)).float()
    layer.bias.data.zero_()
    return nn.Sequential(nn.Flatten(), layer)


def of_python(spec: ModelSpec, shape: Shape, classes: int) -> nn.Module:
    layer = nn.Linear(64, 10)
    layer.weight.data = torch.tensor([[random.gauss(0, 1) for _ in range(64)] for _ in range(10)])
    layer.bias.data.zero_()
    return nn.Sequential(nn.Flatten(), layer)
