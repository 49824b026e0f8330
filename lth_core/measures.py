"""Measures of a network's structure."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_core.masks import prunable_layers


def layers_of(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """(weights, positions) of every prunable layer, in the model's order.

    Positions are the places of the layer's output for one example: each kept weight is multiplied
    once at each, so a layer's forward FLOPs are 2 x kept x positions (padding counted as input).
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
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()
    return {name: (layer.weight.numel(), positions[name]) for name, layer in layers.items()}
