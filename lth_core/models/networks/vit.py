"""A small vision transformer (Dosovitskiy et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_core.models.scale import check_images, check_unused, scaled
from lth_core.spec import ModelSpec

PATCH, HEADS, BLOCKS = 4, 4, 4


class EncoderBlock(nn.Module):
    """Attention and two linear layers, each after layer norm and added to its input.

    Args:
        width: features of a token; a multiple of `HEADS`.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.dropout1 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(b, tokens, width) from the same shape."""
        inner = self.norm1(x)
        x = x + self.dropout1(self.attention(inner, inner, inner, need_weights=False)[0])
        out: Tensor = x + self.dropout2(self.fc2(nn.functional.gelu(self.fc1(self.norm2(x)))))
        return out


class VisionTransformer(nn.Module):
    """Patches of 4 x 4 pixels as tokens, learned positions, blocks, mean over tokens, linear.

    Args:
        shape: shape of one image; a border that is no whole patch is not seen.
    """

    def __init__(
        self, shape: tuple[int, ...], width: int, blocks: int, dropout: float, classes: int
    ) -> None:
        super().__init__()
        channels, height, columns = shape
        tokens = (height // PATCH) * (columns // PATCH)
        self.patches = nn.Conv2d(channels, width, PATCH, stride=PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, dropout) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes) from images (b, channels, height, width)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.output(self.norm(self.blocks(tokens)).mean(1))
        return logits


def vit_tiny(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Vision transformer of 64 features and 4 blocks, times ``width`` and by ``depth``."""
    check_unused(spec, "stem", "widths")
    check_images(spec, shape, PATCH)
    width = HEADS * scaled(16, spec.width)
    return VisionTransformer(shape, width, spec.depth or BLOCKS, spec.dropout, classes)
