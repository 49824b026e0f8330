"""The loop that a researcher would write, against which training is measured.

Images, transforms and a DataLoader as torchvision's and torch's tutorials use them; a mask that is
multiplied in the forward pass; torch.optim with its defaults. No worker processes load the images:
they would use other cores, and ours uses one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from lth_core.data import Dataset, Split
from lth_core.jobs.recipes import Job
from lth_core.masks import Mask
from lth_core.models.layers import parameter_of, prunable_layers
from sweeps.bench.baselines import images

EVALUATION_BATCH = 1000
Example = tuple[Tensor, int]
Batches = Iterable[tuple[Tensor, Tensor]]


class Images(TorchDataset[Example]):
    """Images in memory, read one by one as torchvision's MNIST and CIFAR10 read theirs."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]) -> None:
        # (n, height, width), or with the channels last.
        self.pixels = split.x.permute(0, 2, 3, 1).squeeze(-1).contiguous().numpy()
        self.labels, self.transform = split.y.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        image = Image.fromarray(self.pixels[index])
        return self.transform(image), self.labels[index]


class Masked(nn.Module):
    """A linear layer or convolution whose weight is multiplied by a mask in each forward pass.

    Args:
        mask: (out, in, ...) bool, as the layer's weight.
    """

    mask: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, mask: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("mask", mask.float())

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        layer, weight = self.layer, self.layer.weight * self.mask
        if isinstance(layer, nn.Conv2d):
            return conv2d(x, weight, layer.bias, layer.stride, layer.padding)
        return linear(x, weight, layer.bias)


def with_masks(model: nn.Module, mask: Mask) -> nn.Module:
    """A copy of a network whose prunable layers are `Masked`."""
    model = copy.deepcopy(model)
    for name, (layer, _) in prunable_layers(model).items():
        parent, _, child = name.rpartition(".")
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        setattr(model.get_submodule(parent), child, Masked(layer, mask[parameter_of(name)]))
    return model


def transform(
    mean: tuple[float, ...], std: tuple[float, ...], augmented: bool
) -> Callable[[Image.Image], Tensor]:
    """An image as a normalized tensor, at random cropped after padding and flipped before."""
    from torchvision import transforms

    augmentation = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    plain = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(
        [*augmentation, *plain] if augmented else plain
    )
    return composed


def training(job: Job, dataset: Dataset, model: nn.Module) -> Iterator[float]:
    """The loss of each step of a job's training, epoch after epoch, on a copy of a network.

    Args:
        model: as from `with_masks`.
    """
    model, spec = copy.deepcopy(model), job.train
    if spec.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), spec.lr)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay
        )
    examples = _examples(job, dataset, dataset.train, job.data.augment != "none")
    batches = DataLoader(examples, spec.batch_size, shuffle=True, num_workers=0)
    return steps(model, batches, optimizer, spec.precision == "bf16")


def evaluated(job: Job, dataset: Dataset, split: Split) -> Batches:
    """Batches of a part of a job's data, for an evaluation."""
    return DataLoader(_examples(job, dataset, split, False), EVALUATION_BATCH, num_workers=0)


def _examples(
    job: Job, dataset: Dataset, split: Split, augmented: bool
) -> TorchDataset[tuple[Any, ...]]:
    """Examples one by one: images, or rows of a table that was normalized before."""
    if job.data.name not in images.MEAN:
        return TensorDataset(dataset.normalize(split.x), split.y)
    mean, std = images.MEAN[job.data.name], images.STD[job.data.name]
    return Images(split, transform(mean, std, augmented))


def steps(
    model: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer, bf16: bool = False
) -> Iterator[float]:
    """The loss of each training step, epoch after epoch.

    Args:
        bf16: whether forward and backward passes are computed in bfloat16, by autocast.
    """
    model.train()
    while True:
        for x, y in batches:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            yield loss.item()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Mean loss and accuracy over all batches, in evaluation mode."""
    model.eval()
    loss, correct, examples = 0.0, 0, 0
    for x, y in batches:
        logits = model(x)
        loss += cross_entropy(logits, y, reduction="sum").item()
        correct += int((logits.argmax(1) == y).sum())
        examples += len(y)
    model.train()
    return loss / examples, correct / examples
