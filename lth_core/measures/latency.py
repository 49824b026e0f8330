"""Latency of networks without the channels that pruning removed, beside their dense networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypedDict

import torch

from lth_core import models
from lth_core.models.channels import Channels, Kept, without_channels
from lth_core.models.latency import BATCH_SIZE, THREADS, device_name, latency
from lth_core.models.layers import layer_of
from lth_core.plugins import errors_as_spec_errors
from lth_core.spec import ModelSpec

SECONDS = 0.5
"""Least duration of the measurement of a structure; a study may have dozens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Sizes of a network's layers; of all that a latency depends on, what seeds may share."""

    model: ModelSpec
    """The network that has lost channels."""
    dense: ModelSpec
    """The network to compare with; narrower where gates widened the other."""
    shape: tuple[int, ...]
    """Shape of one example."""
    classes: int
    outputs: tuple[tuple[str, int], ...]
    """Number of outputs that each prunable layer has kept."""


class StructureLatency(TypedDict):
    """Latency of a structure and of its dense network, measured together."""

    latency_ms: float
    dense_latency_ms: float
    batch_size: int
    threads: int
    device: str


def structure_latency(structure: Structure, device: torch.device) -> StructureLatency:
    """Median milliseconds of a forward pass of a structure and of its dense network, on a device.

    Weights do not matter to it, so those of no seed are used.

    Raises:
        SpecError: the network's own code fails.
    """
    name, shape, classes = structure.model.name, structure.shape, structure.classes
    ungated = replace(structure.model, gates=False)
    model, dense = (models.template(spec, shape, classes) for spec in (ungated, structure.dense))
    channels = models.removable_channels(ungated, shape, classes)
    kept = _kept(channels, dict(structure.outputs))
    networks = [dense]
    if model is not dense or not all(bool(each.all()) for each in kept.values()):
        networks.append(without_channels(model, channels, kept))
    failing = f"has no latency, because it fails on {BATCH_SIZE} examples in evaluation mode"
    with errors_as_spec_errors("model.name", failing, name):
        milliseconds = latency(networks, shape, device=device, seconds=SECONDS)
    return {
        "latency_ms": milliseconds[-1], "dense_latency_ms": milliseconds[0],
        "batch_size": BATCH_SIZE, "threads": THREADS, "device": device_name(device),
    }  # fmt: skip


def _kept(channels: Channels, outputs: Mapping[str, int]) -> Kept:
    """As many channels of each group as its producers have outputs."""
    return {
        name: torch.arange(group.size) < max(outputs[layer_of(p)] for p in group.producers)
        for name, group in channels.items()
    }
