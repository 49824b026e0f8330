"""A network's prunable layers: their weights' shapes, positions and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from lth_core.models.draws import seeded_draws

PrunableLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A prunable layer under a mask."""

    shape: tuple[int, ...]
    """Shape of the layer's weight, (out, in, ...)."""
    kept: int
    """Weights that the mask keeps."""
    positions: int
    """Positions of the output for one example; each weight is multiplied once at each."""

    @property
    def weights(self) -> int:
        """Number of weights, kept and pruned."""
        return prod(self.shape)

    @property
    def flops(self) -> int:
        """Forward FLOPs per example of the kept weights, 2 per multiply-add."""
        return 2 * self.kept * self.positions

    @property
    def dense_flops(self) -> int:
        """Forward FLOPs per example of all weights."""
        return 2 * self.weights * self.positions


def prunable_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    """Layers whose weight can be pruned, by name, in the model's order; the last is the output.

    These are linear and convolution layers; normalization parameters and biases are not prunable.
    """
    return {
        name: layer for name, layer in model.named_modules() if isinstance(layer, PrunableLayer)
    }


def shapes_and_positions(
    model: nn.Module, shape: tuple[int, ...]
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Weight shape and `Layer.positions` of every prunable layer, by name in the model's order.

    Padding counts as input, so a layer's forward FLOPs are 2 x kept x positions.

    Args:
        shape: shape of one example, such as (3, 32, 32).
    """
    layers = prunable_layers(model)
    positions = dict.fromkeys(layers, 0)

    def count(name: str, channels: int):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            positions[name] += output.numel() // channels

        return hook

    hooks = [
        layer.register_forward_hook(count(name, layer.weight.shape[0]))
        for name, layer in layers.items()
    ]
    training = model.training
    try:
        with torch.no_grad(), seeded_draws(0):
            model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()
    return {name: (tuple(layer.weight.shape), positions[name]) for name, layer in layers.items()}
