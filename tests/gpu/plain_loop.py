"""The training loop that a researcher would write: what packs are compared with on a GPU.

A DataLoader over images in memory, transforms of each image, torch.optim with its defaults, a mask
multiplied in the forward pass.
"""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear, pad
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from lth_core.data import Dataset
from lth_core.models.layers import prunable_layers
from lth_core.spec import TrainSpec


class Images(TorchDataset[tuple[Tensor, int]]):
    """Images as normalized tensors, at random cropped after padding and flipped before."""

    def __init__(self, dataset: Dataset, augmented: bool) -> None:
        self.pixels, self.labels = dataset.train.x.cpu(), dataset.train.y.tolist()
        self.mean, self.std, self.augmented = dataset.mean.cpu(), dataset.std.cpu(), augmented

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x = self.pixels[index]
        if self.augmented:
            row, column, flipped = torch.randint(9, (3,)).tolist()
            x = pad(x, (4, 4, 4, 4))[:, row : row + x.shape[1], column : column + x.shape[2]]
            x = x.flip(2) if flipped % 2 else x
        return (x.float() - self.mean) / self.std, self.labels[index]


def with_masks(model: nn.Module, density: float) -> nn.Module:
    """A copy of a network whose prunable weights are multiplied by random masks in each forward pass."""
    model = copy.deepcopy(model)
    for layer, weight in prunable_layers(model).values():
        layer.register_buffer("mask", (torch.rand_like(weight) < density).float())
        layer.forward = partial(_masked, layer)  # type: ignore[method-assign]
    return model


def _masked(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    weight = layer.weight * layer.mask
    if isinstance(layer, nn.Conv2d):
        return conv2d(x, weight, layer.bias, layer.stride, layer.padding)
    return linear(x, weight, layer.bias)


def optimizer_of(model: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    if spec.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=spec.lr, momentum=spec.momentum)
    return torch.optim.Adam(model.parameters(), lr=spec.lr)


def steps(
    model: nn.Module, dataset: Dataset, spec: TrainSpec, device: torch.device, augmented: bool
) -> Iterator[float]:
    """The loss of each training step, epoch after epoch."""
    batches = DataLoader(Images(dataset, augmented), spec.batch_size, shuffle=True)
    optimizer = optimizer_of(model, spec)
    while True:
        for x, y in batches:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
                loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            yield loss.item()
