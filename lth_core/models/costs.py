"""Costs of a network without some of its channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from torch import nn

from lth_core.models.channels import Channels, Kept, channels_of, kept_entries
from lth_core.models.layers import parameter_of
from lth_core.models.positions import shapes_and_positions
from lth_core.spec.prune_base import LATENCIES


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a network without the channels that are not kept, counted as records count them."""

    channels: Channels
    shapes: dict[str, tuple[int, ...]]
    """Shape of every parameter, by name."""
    positions: dict[str, int]
    """Multiplications by each prunable weight for one example, by parameter name."""
    latency: Callable[[Kept, str], float] | None = None
    """Milliseconds of a forward pass on a device, cpu or cuda."""
    whole: Costs | None = None
    """Costs of the network of which a budget is a share; None: this network's."""

    def of(self, kind: str, kept: Kept) -> float:
        """Cost without the channels that are not kept; groups that are not named keep all.

        Args:
            kind: flops, parameters, latency_ms or cuda_latency_ms.
        """
        if kind in LATENCIES:
            assert self.latency
            return self.latency(kept, LATENCIES[kind])
        return self.flops(kept) if kind == "flops" else self.parameters(kept)

    def flops(self, kept: Kept) -> int:
        """Forward FLOPs per example of convolutions and linear layers, 2 per multiply-add."""
        sizes = self._sizes(kept)
        return sum(2 * times * sizes[name] for name, times in self.positions.items())

    def parameters(self, kept: Kept) -> int:
        """Number of parameters, those of biases and norms too."""
        return sum(self._sizes(kept).values())

    def _sizes(self, kept: Kept) -> dict[str, int]:
        """Number of entries that each parameter keeps."""
        entries = kept_entries(self.channels, kept)
        counts = {name: {dim: int(e.sum()) for dim, e in dims.items()}
                  for name, dims in entries.items()}  # fmt: skip
        return {
            name: prod(counts.get(name, {}).get(dim, size) for dim, size in enumerate(shape))
            for name, shape in self.shapes.items()
        }


def costs_of(model: nn.Module, shape: tuple[int, ...], channels: Channels | None = None) -> Costs:
    """Costs of a network on examples of a shape, such as (3, 32, 32).

    Args:
        channels: the network's removable channels; None: they are found.
    """
    layers = shapes_and_positions(model, shape)
    return Costs(
        channels=channels_of(model, shape) if channels is None else channels,
        shapes={name: tuple(p.shape) for name, p in model.named_parameters()},
        positions={parameter_of(name): times for name, (_, times) in layers.items()},
    )
