"""The loop that a researcher would write, against which training is measured.

Images, transforms and a DataLoader as torchvision's and torch's tutorials use them; a mask that is
multiplied in the forward pass; torch.optim with its defaults. No worker processes load the images:
they would use other cores, and ours uses one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from lth_core.data import Split
from lth_core.masks import Mask
from lth_core.models.layers import parameter_of, prunable_layers

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


def loader(dataset: TorchDataset[Example], batch_size: int, shuffle: bool = True) -> Batches:
    """Batches of a dataset."""
    return DataLoader(dataset, batch_size, shuffle=shuffle, num_workers=0)


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
