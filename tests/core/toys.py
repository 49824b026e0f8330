"""Helpers of these tests, and a user's own models and datasets as a study file names them."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_core.data import Dataset, Split
from lth_core.data.augment import augment
from lth_core.data.dataset import raw
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.masks import Mask, State
from lth_core.models.dropout import Dropout
from lth_core.resolve import resolve
from lth_core.spec import DataSpec, ModelSpec, TicketSpec
from lth_core.spec.learning_rate import learning_rate
from lth_core.train.batches import Order

BRANCHES = ("ticket", "reinit", "random_mask", "shuffled_mask")


def same(a: State, b: State) -> bool:
    """Whether two states are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what may differ between two equal runs."""
    return {
        k: v for k, v in record.items() if k not in ("train_seconds", "search_seconds", "reused")
    }


def jobs_of(spec: TicketSpec) -> list[dict[str, Job]]:
    return list(levels(resolve(spec)))


def batch_norm_net(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A convolution with buffers that training changes."""
    net = nn.Sequential()
    net.add_module("conv", nn.Conv2d(shape[0], 4, 3, padding=1, bias=False))
    net.add_module("norm", nn.BatchNorm2d(4))
    net.add_module("relu", nn.ReLU())
    net.add_module("flatten", nn.Flatten())
    net.add_module("output", nn.Linear(4 * shape[1] * shape[2], classes))
    return net


class FailsOnMany(nn.Sequential):
    """A linear network that takes no batch of more than 63."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 63:
            raise RuntimeError("too many")
        return super().forward(x)


def fails_on_many(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    return FailsOnMany(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))


def pooled_net(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Batch norm of maps of one position, which cannot train on one example."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    net.add_module("conv", nn.Conv2d(shape[0], 4, 1))
    net.add_module("norm", nn.BatchNorm2d(4))
    net.add_module("relu", nn.ReLU())
    net.add_module("flatten", nn.Flatten())
    net.add_module("output", nn.Linear(4, classes))
    return net


def dropping_net(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network with torch's own dropout inside."""
    inner = nn.Sequential()
    inner.add_module("drop", nn.Dropout(0.5))
    net = nn.Sequential(nn.Flatten())
    net.add_module("inner", inner)
    net.add_module("output", nn.Linear(shape[0] * shape[1] * shape[2], classes))
    return net


def tied_net(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Weights of few values, so that most scores tie; built so, not drawn."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 6), nn.ReLU(),
                        nn.Linear(6, classes))  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.sign() * 0.1)
    return net


def biasless_net(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Its output layer has no bias, and a neuron without inputs is not 0."""
    net = nn.Sequential(nn.Flatten())
    net.add_module("hidden", nn.Linear(prod(shape), 6))
    net.add_module("sigmoid", nn.Sigmoid())
    net.add_module("output", nn.Linear(6, classes, bias=False))
    return net


def linear_net(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Softmax regression: its loss is convex."""
    net = nn.Sequential(nn.Flatten())
    net.add_module("output", nn.Linear(prod(shape), classes))
    return net


def not_a_dataset(spec: DataSpec) -> int:
    return 3


def thirds(spec: DataSpec) -> Dataset:
    """90 + 30 images in the shape of the digits, of 3 classes: which third is bright."""
    y = torch.arange(120) % 3
    x = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for label, rows in enumerate(((0, 2), (3, 5), (6, 8))):
        x[y == label, :, rows[0] : rows[1]] += 1
    return raw(Split(x[:90], y[:90]), Split(x[90:], y[90:]), torch.zeros(1), torch.ones(1), 3)


def colours(spec: DataSpec) -> Dataset:
    """50 seeded 3x8x8 images of 3 classes: that of the brightest channel."""
    stream = torch.Generator().manual_seed(5)
    y = torch.randint(0, 3, (70,), generator=stream)
    x = torch.randint(0, 128, (70, 3, 8, 8), generator=stream, dtype=torch.uint8)
    x[torch.arange(70), y] += 100
    flat = torch.tensor([90.0, 91.0, 92.0]).view(3, 1, 1), torch.tensor([50.0]).view(1, 1, 1)
    return raw(Split(x[:50], y[:50]), Split(x[50:], y[50:]), *flat, 3)


def features(spec: DataSpec) -> Dataset:
    """Rows of five numbers, no images."""
    rows = Split(torch.arange(100.0).view(20, 5), torch.arange(20) % 2)
    return raw(rows, rows, torch.zeros(5), torch.ones(5), 2)


def textbook(
    job: Job, model: nn.Module, mask: Mask, dataset: Dataset,
    change: Callable[[int, nn.Module, Mask], object] = lambda step, model, mask: None,
) -> State:  # fmt: skip
    """The job's training as a textbook writes it, one step after the other; returns the end.

    The model holds the start. Plain optimizers, the mask multiplied in after each step. ``change``
    is called before each optimizer step, to alter weights and mask in place.
    """
    spec, kinds = job.train, ("SGD", "Adam", "AdamW")
    optimizers = {kind.lower(): getattr(torch.optim, kind) for kind in kinds}
    options = {"momentum": spec.momentum, "nesterov": spec.nesterov} if spec.momentum else {}
    optimizer = optimizers[spec.optimizer](
        model.parameters(), lr=spec.lr, weight_decay=spec.weight_decay, **options
    )
    # Said anew, not asked of the job: the level, and with order 1 the other draws of that level.
    run = str(0 if spec.replay_order else job.level) + (".1" if job.order == 1 else "")
    order = Order(len(dataset.train), spec.batch_size, job.seed, run, job.data.augment)
    for step in range(job.first, job.last):
        ((_, index, drawn),) = order.batches(step, step + 1, torch.device("cpu"))
        optimizer.param_groups[0]["lr"] = learning_rate(spec, step)
        x: Tensor = dataset.train.x[index]
        x = augment(x, drawn) if job.data.augment != "none" else x
        optimizer.zero_grad()
        for layer in model.modules():
            if isinstance(layer, Dropout):
                layer.begin_step(job.seed, run, step)
        cross_entropy(model(dataset.normalize(x)), dataset.train.y[index]).backward()
        change(step, model, mask)
        optimizer.step()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in mask:
                    parameter *= mask[name]
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class After:
    """An event that is set once it was asked so often: each step asks."""

    def __init__(self, times: int) -> None:
        self.times = times

    def is_set(self) -> bool:
        self.times -= 1
        return self.times < 0
