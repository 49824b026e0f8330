"""Benchmark of smaller networks: how much faster half of the FLOPs are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from lth_core import masks, models
from lth_core.measures.latency import BATCH_SIZE, SECONDS, THREADS, device_name, latency
from lth_core.models.channels import Channels, channels_of, masks_of
from lth_core.models.compact import compact
from lth_core.models.layers import shapes_and_positions
from lth_core.spec import ModelSpec

SHAPE, CLASSES = (3, 32, 32), 10
"""CIFAR-10's."""
NETWORKS = ("conv-6", "vgg-16")
LEAST = 1.6
"""Least speed-up at half of the FLOPs."""


@dataclass(frozen=True)
class CompactBench:
    """Latency of a network with the same share of the channels of each layer, and of the full one.

    Both are measured in turns, by one thread of this process.
    """

    network: str
    flops: float
    """FLOPs of the smaller network, as a share of the full one's."""
    dense_ms: float
    compact_ms: float
    device: str

    @property
    def share(self) -> float:
        """Time of the smaller network, as a share of the full one's."""
        return self.compact_ms / self.dense_ms

    def __str__(self) -> str:
        return (
            f"time of {self.network} with {self.flops:.1%} of its FLOPs ({self.compact_ms:.1f} of "
            f"{self.dense_ms:.1f} ms, {1 / self.share:.2f} times faster), batch {BATCH_SIZE}, "
            f"{THREADS} thread, {self.device}"
        )


def bench_compact(
    networks: Mapping[str, ModelSpec] | None = None, seconds: float = 5 * SECONDS
) -> Iterator[CompactBench]:
    """Latency of networks with half of their FLOPs, and of the full ones.

    Args:
        networks: by name; default Conv-6 and VGG-16.
        seconds: duration of each network's measurement.
    """
    for name, spec in (networks or {name: ModelSpec(name=name) for name in NETWORKS}).items():
        model = models.build(spec, SHAPE, CLASSES, torch.Generator().manual_seed(0))
        mask = _half_of_the_flops(model)
        smaller = compact(model, mask, SHAPE)
        compact_ms, dense_ms = latency([smaller, model], SHAPE, seconds=seconds)
        share = _flops(smaller) / _flops(model)
        yield CompactBench(name, share, dense_ms, compact_ms, device_name(torch.device("cpu")))


def _half_of_the_flops(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Mask with the largest share of the channels, one for all layers, within half of the FLOPs."""
    channels, positions = channels_of(model, SHAPE), shapes_and_positions(model, SHAPE)
    half = _flops(model) / 2

    def flops(mask: dict[str, torch.Tensor]) -> int:
        kept = {layer: int(mask[masks.parameter_of(layer)].sum()) for layer in positions}
        return sum(2 * times * kept[layer] for layer, (_, times) in positions.items())

    narrower = (_mask(model, channels, percent / 100) for percent in range(100, 0, -1))
    return next(mask for mask in narrower if flops(mask) <= half)


def _mask(model: torch.nn.Module, channels: Channels, share: float) -> dict[str, torch.Tensor]:
    """Mask that keeps the first channels of each group."""
    kept = {name: torch.arange(group.size) < max(1, round(share * group.size))
            for name, group in channels.items()}  # fmt: skip
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return {**masks.ones(model), **masks_of(channels, kept, shapes)}


def _flops(model: torch.nn.Module) -> int:
    """Forward FLOPs per example, 2 per multiply-add."""
    counted = shapes_and_positions(model, SHAPE).values()
    return sum(2 * torch.Size(shape).numel() * times for shape, times in counted)
