"""Benchmark of smaller networks: how much faster half of the FLOPs are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from lth_core import models
from lth_core.models.channels import Kept, without_channels
from lth_core.models.costs import Costs, costs_of
from lth_core.models.latency import BATCH_SIZE, SECONDS, THREADS, device_name, latency
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
        costs = costs_of(model, SHAPE)
        kept = _half_of_the_flops(costs)
        smaller = without_channels(model, costs.channels, kept)
        compact_ms, dense_ms = latency([smaller, model], SHAPE, seconds=seconds)
        share = costs.flops(kept) / costs.flops({})
        yield CompactBench(name, share, dense_ms, compact_ms, device_name(torch.device("cpu")))


def _half_of_the_flops(costs: Costs) -> Kept:
    """The largest share of the channels, one for all groups, within half of the FLOPs."""
    half = costs.flops({}) / 2
    narrower = (_first_channels(costs, percent / 100) for percent in range(100, 0, -1))
    return next(kept for kept in narrower if costs.flops(kept) <= half)


def _first_channels(costs: Costs, share: float) -> Kept:
    """The first channels of each group, at least one."""
    return {
        name: torch.arange(group.size) < max(1, round(share * group.size))
        for name, group in costs.channels.items()
    }
