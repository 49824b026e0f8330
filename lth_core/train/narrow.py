"""Training of a network without the channels that its mask removes.

The whole network under its mask computes the same: removed channels are 0, and so are their
gradients. Without them a step costs what the structure costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lth_core.masks import Mask, State
from lth_core.models.channels import Channels, kept_channels, kept_entries, without_channels
from lth_core.train.loop import Outcome


@dataclass(frozen=True, slots=True)
class Narrow:
    """A network without some channels, and the place of its tensors in the whole network's."""

    model: nn.Module
    mask: Mask
    """The mask of the weights that are left, in their shapes."""
    whole: State
    """Weights and buffers of the whole network before training; 0 in removed channels."""
    whole_mask: Mask
    entries: dict[str, dict[int, Tensor]]
    """(entries,) bool of the dimensions of each tensor that loses some, by name."""

    def widened(self, outcome: Outcome) -> Outcome:
        """An outcome of the narrow network, in the shapes of the whole one."""
        return replace(outcome, state=self._widened(outcome.state), mask=self.whole_mask)

    def _widened(self, state: State) -> State:
        found: State = {}
        for name, value in state.items():
            found[name] = value
            if name in self.entries:
                found[name] = self.whole[name].clone()
                found[name][_places(self.entries[name], found[name])] = value.reshape(-1)
        return found


def narrowed(model: nn.Module, channels: Channels, state: State, mask: Mask) -> Narrow | None:
    """The network without the mask's removed channels; None where there is none, or a layer has no
    channel left.

    Args:
        model: the whole network with its starting weights, on any device.
        state: those weights and its buffers, in its shapes; pruned weights are 0.
        mask: (out, in, ...) bool of each prunable layer, by parameter name.
    """
    kept = kept_channels(channels, mask)
    entries = kept_entries(channels, kept)
    if not entries or not all(bool(stays.any()) for stays in kept.values()):
        return None
    left = {
        name: m[_places(entries[name], m)].view(_shape(entries[name], m)) if name in entries else m
        for name, m in mask.items()
    }
    return Narrow(without_channels(model, channels, kept), left, state, mask, entries)


def _places(dims: dict[int, Tensor], tensor: Tensor) -> Tensor:
    """bool in the shape of a tensor: its entries that stay."""
    places = torch.ones(tensor.shape, dtype=torch.bool)
    for dim, stays in dims.items():
        places &= stays.view(-1, *[1] * (tensor.dim() - dim - 1))
    return places


def _shape(dims: dict[int, Tensor], tensor: Tensor) -> list[int]:
    return [int(dims[dim].sum()) if dim in dims else size for dim, size in enumerate(tensor.shape)]
