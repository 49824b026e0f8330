"""Training of a network without the channels that its mask removes.

The whole network under its mask computes the same: removed channels are 0, and so are their
gradients. Without them a step costs what the structure costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from lth_core.masks import Mask, State
from lth_core.models.channels import (
    Channels,
    kept_channels,
    kept_entries,
    narrow_shape,
    places,
    without_channels,
)
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
        found = dict[str, Tensor]()
        for name, value in state.items():
            found[name] = value
            if name in self.entries:
                found[name] = self.whole[name].clone()
                found[name][places(self.entries[name], found[name].shape)] = value.reshape(-1)
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
    left = dict[str, Tensor]()
    for name, m in mask.items():
        dims = entries.get(name, {})
        left[name] = m[places(dims, m.shape)].view(narrow_shape(dims, m.shape))
    return Narrow(without_channels(model, channels, kept), left, state, mask, entries)
