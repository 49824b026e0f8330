"""Augmentation on the device: one gather for each batch, one draw for each example."""

from __future__ import annotations

import torch
from torch import Tensor

from lth_core.spec import Augment

PAD = 4
"""Pixels of zero padding on each side before a crop (He et al. 2016)."""


def draws(kind: Augment, examples: int, generator: torch.Generator) -> Tensor:
    """Random choices of one epoch: (examples, 3) int64 of crop row, crop column, flip."""
    if kind == "none":
        return torch.tensor([PAD, PAD, 0]).expand(examples, 3)
    drawn = torch.randint(0, 2 * PAD + 1, (examples, 3), generator=generator)
    if kind == "flip":
        drawn[:, :2] = PAD
    drawn[:, 2] = torch.randint(0, 2, (examples,), generator=generator)
    if kind == "crop":
        drawn[:, 2] = 0
    return drawn


def augment(x: Tensor, drawn: Tensor) -> Tensor:
    """A raw batch with each image cropped and flipped by its own draw, in the shape of x.

    Args:
        x: (batch, channels, height, width), raw pixels.
        drawn: (batch, 3) int64 from ``draws``.
    """
    batch, channels, height, width = x.shape
    padded = torch.nn.functional.pad(x, (PAD, PAD, PAD, PAD))
    rows = drawn[:, 0, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(batch, width)
    columns = torch.where(drawn[:, 2, None].bool(), width - 1 - columns, columns)
    columns = columns + drawn[:, 1, None]
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    chosen = pixels.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, chosen).view(x.shape)
