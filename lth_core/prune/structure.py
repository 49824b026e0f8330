"""Structure: units, groups of weights that are pruned as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from lth_core.masks import Mask
from lth_core.models.channels import ChannelGroup, Channels, Kept, Part, kept_channels, masks_of
from lth_core.spec import PruneBase
from lth_core.spec.prune_base import CHANNELS

Shapes = Mapping[str, Sequence[int]]
"""Weight shape of each prunable layer, (out, in, ...), in the model's order."""

STRUCTURES = {
    "weights": "every weight for itself (LeCun et al. 1990)",
    "channels": "output channels (filters) of convolutions, removed from the network with all that "
    "reads them (Li et al. 2017)",
    "neurons": "units of linear layers, removed likewise (Mozer & Smolensky 1988)",
    "N:M": "such as 2:4: N of every M weights along the inputs stay (Mishra et al. 2021)",
}


def layers_with_units(shapes: Shapes, spec: PruneBase) -> list[str]:
    """Names of the layers with units of the structure. The output's units are classes, and stay.

    >>> shapes = {"conv": (8, 3, 3, 3), "output": (10, 8)}
    >>> layers_with_units(shapes, PruneBase(structure="channels"))
    ['conv']
    """
    if spec.structure not in CHANNELS:
        return list(shapes)
    convolution = spec.structure == "channels"
    return [name for name in list(shapes)[:-1] if (len(shapes[name]) > 2) == convolution]


class Units(Protocol):
    """Units that are pruned as a whole, in sets that are named by a parameter."""

    def names(self, layers: Sequence[str]) -> list[str]:
        """Names of the sets of the layers' units.

        Args:
            layers: weights by parameter name, all that the spec prunes, or some of them.
        """

    def alive(self, mask: Mask, name: str) -> Tensor:
        """(units,) bool: the units of a set that have a kept weight."""

    def scores(self, scores: Mapping[str, Tensor], mask: Mask, name: str, summed: bool) -> Tensor:
        """(units,) float: scores of a set's units from those of weights, (out, in, ...) each.

        Those of units without a kept weight mean nothing.

        Args:
            summed: whether a unit's score is the sum over its kept weights, else the mean.
        """

    def mask(self, kept: Kept, mask: Mask) -> Mask:
        """A mask without the units that are not kept; sets that are not named stay."""


class WeightUnits:
    """Every weight for itself; a layer's weights are a set."""

    def names(self, layers: Sequence[str]) -> list[str]:
        return list(layers)

    def alive(self, mask: Mask, name: str) -> Tensor:
        return mask[name].reshape(-1)

    def scores(self, scores: Mapping[str, Tensor], mask: Mask, name: str, summed: bool) -> Tensor:
        return scores[name].reshape(-1)

    def mask(self, kept: Kept, mask: Mask) -> Mask:
        return {n: m & kept[n].view(m.shape) if n in kept else m for n, m in mask.items()}


@dataclass(frozen=True, slots=True)
class ChannelUnits:
    """Channels, or neurons; a group that can only be removed together is a set.

    A channel's score is the mean over the layers that produce it. Pruning it removes the weights
    that produce it and those that read it.

    >>> mask = {"fc1.weight": torch.ones(3, 2), "output.weight": torch.ones(4, 3)}
    >>> mask = {name: m.bool() for name, m in mask.items()}
    >>> part = Part("fc1.weight", 0, torch.arange(3), True)
    >>> read = Part("output.weight", 1, torch.arange(3), False)
    >>> units = ChannelUnits({"fc1.weight": ChannelGroup(3, ("fc1.weight",), (part, read))})
    >>> pruned = units.mask({"fc1.weight": torch.tensor([True, False, False])}, mask)
    >>> {name: int(m.sum()) for name, m in pruned.items()}
    {'fc1.weight': 2, 'output.weight': 4}
    """

    channels: Channels

    def names(self, layers: Sequence[str]) -> list[str]:
        return [name for name in layers if name in self.channels]

    def within(self, layers: Sequence[str]) -> ChannelUnits:
        """The groups whose producers are all among the layers, by parameter name."""
        return ChannelUnits(
            {n: g for n, g in self.channels.items() if set(g.producers) <= set(layers)}
        )

    def alive(self, mask: Mask, name: str) -> Tensor:
        return kept_channels({name: self.channels[name]}, mask)[name]

    def scores(self, scores: Mapping[str, Tensor], mask: Mask, name: str, summed: bool) -> Tensor:
        group = self.channels[name]
        produced = [part for part in group.parts if part.produces]
        total = torch.zeros(group.size, dtype=torch.float64)
        count = torch.zeros(group.size, dtype=torch.float64)
        for part in produced:
            rows = _rows(scores[part.tensor].where(mask[part.tensor], 0), part).double().sum(1)
            if not summed:
                rows /= _rows(mask[part.tensor], part).sum(1).clamp(min=1)
            own = part.channel >= 0
            total.index_add_(0, part.channel[own], rows[own])
            count.index_add_(0, part.channel[own], torch.ones_like(rows[own]))
        return total / count

    def mask(self, kept: Kept, mask: Mask) -> Mask:
        channels = {name: self.channels[name] for name in kept}
        without = masks_of(channels, kept, {name: m.shape for name, m in mask.items()})
        return {name: m & without[name] if name in without else m for name, m in mask.items()}


def _rows(values: Tensor, part: Part) -> Tensor:
    """(channels, weights) of a producer's values."""
    return values.movedim(part.dim, 0).flatten(1)


def rows_as_channels(mask: Mask) -> Channels:
    """Channels of weights whose network is not known: a layer's outputs, which nothing reads."""
    return {
        name: ChannelGroup(len(m), (name,), (Part(name, 0, torch.arange(len(m)), True),))
        for name, m in mask.items()
    }


def highest_n_of_m(
    scores: Tensor, alive: Tensor, n: int, m: int, generator: torch.Generator
) -> Tensor:
    """The mask that keeps the n highest-scored of every m weights along the inputs.

    In a convolution the groups are over input channels, for each position of the kernel. A last
    group of fewer than m weights keeps at most n. Ties are broken by a draw (Mishra et al. 2021).

    >>> scores = torch.tensor([[1.0, 4.0, 3.0, 2.0, 5.0]])
    >>> highest_n_of_m(scores, torch.ones(1, 5, dtype=torch.bool), 2, 4, torch.Generator())
    tensor([[False,  True,  True, False,  True]])

    Args:
        scores, alive: (out, in, ...) float and bool; weights that are not alive stay pruned.

    Returns:
        (out, in, ...) bool.
    """
    rows = _grouped(torch.where(alive, scores, -torch.inf), m, -torch.inf)
    # Weights are shuffled first: the stable sort then leaves ties in random order.
    shuffle = torch.rand(rows.shape, generator=generator).argsort(1)
    order = rows.gather(1, shuffle).sort(dim=1, descending=True, stable=True).indices
    chosen = torch.zeros_like(rows, dtype=torch.bool)
    chosen.scatter_(1, shuffle.gather(1, order[:, :n]), True)
    return _ungrouped(chosen, alive.shape) & alive


def n_of_m_like(like: Tensor, m: int, rank: Callable[[Tensor], Tensor]) -> Tensor:
    """A mask (out, in, ...) bool that keeps as many of each group of m weights as another does.

    Args:
        like: (out, in, ...) bool.
        rank: from the weights that ``like`` keeps, (groups, m) bool, to their ranks, (groups, m)
            float; the lowest are kept.
    """
    kept = _grouped(like, m, False)
    real = _grouped(torch.ones_like(like), m, False)
    places = rank(kept).where(real, torch.inf).argsort(1).argsort(1)
    return _ungrouped(places < kept.sum(1, keepdim=True), like.shape)


def _grouped(values: Tensor, m: int, fill: float) -> Tensor:
    """(groups, m): the weights along the inputs, m at a time, the last group padded."""
    inputs_last = values.movedim(1, -1)
    return pad(inputs_last, (0, -inputs_last.shape[-1] % m), value=fill).reshape(-1, m)


def _ungrouped(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The weights (out, in, ...) of `_grouped` rows (groups, m)."""
    out, inputs, *rest = shape
    return rows.reshape(out, *rest, -1)[..., :inputs].movedim(-1, 1)
