"""Learned stochastic supermasks (Zhou et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from lth_core.masks import Mask
from lth_core.seeds import generator
from lth_core.spec import Pruning
from lth_core.train.masking.learned import Learned, Tensors, in_rows
from lth_core.train.precision import precise

STEPS, GPU_STEPS = 50, 8
"""Largest number of Newton steps for the probabilities of a step, and their number on a GPU."""


class Supermask(Learned):
    """A learned probability for each frozen weight (Zhou et al. 2019).

    A mask is drawn at every step. The probabilities of competing layers sum to the number of
    weights that they keep. In evaluation the weights of highest probability are kept. All
    probabilities are equal at first.

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> prune = PruneSpec(when="never", score="supermask", fraction=0.5, lr=0.05)
    >>> *_, level = find_tickets(TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1))
    >>> level.records[0]["method"], round(level.ticket.density, 2)
    ('supermask', 0.5)
    """

    def __init__(self, model: nn.Module, mask: Mask, spec: Pruning, seed: int, level: int) -> None:
        super().__init__(model, mask, spec, seed, level)
        device = next(iter(self.frozen.values())).device
        kept = [float(keep) for _, keep in self.quotas]
        self._kept = torch.tensor(kept, dtype=precise(device), device=device)
        """Number of weights that each quota keeps, (quotas,)."""
        self._thresholds = torch.zeros_like(self._kept)
        """t of each quota in `_probabilities_of`, as of the last step, (quotas,)."""
        self._probabilities: dict[str, Tensor] = {}

    def initial_scores(self, weight: Tensor, draws: torch.Generator) -> Tensor:
        return torch.zeros_like(weight)

    @classmethod
    def step_masks(cls, members: Sequence[Self], scores: Tensors, step: int) -> Tensors:
        probabilities: dict[str, Tensor] = {}
        for number, (names, _) in enumerate(members[0].quotas):
            flat = in_rows(scores[name].detach() for name in names)
            p = cls._probabilities_of(members, number, flat)
            probabilities |= cls.by_layer(names, p, scores)
        for place, member in enumerate(members):
            member._probabilities = {name: p[place] for name, p in probabilities.items()}
        drawn = [member._drawn(step) for member in members]
        return {
            name: (torch.stack([draws[name] for draws in drawn]) < p).to(p.dtype)
            for name, p in probabilities.items()
        }

    @classmethod
    def score_gradients(
        cls, members: Sequence[Self], name: str, scores: Tensor, gradients: Tensor
    ) -> Tensor:
        """Gradients times the derivative of the probabilities in the scores, p (1 - p)."""
        p = torch.stack([member._probabilities[name] for member in members])
        return gradients * (p * (1 - p))

    def _drawn(self, step: int) -> dict[str, Tensor]:
        """Uniform draws of a step, (out, in, ...) of each layer."""
        draws = generator(self.seed, "mask", "tried", self.level, step)
        return {
            name: torch.rand(p.shape, generator=draws).to(p.device)
            for name, p in self._probabilities.items()
        }

    @classmethod
    def _probabilities_of(cls, members: Sequence[Self], number: int, flat: Tensor) -> Tensor:
        """sigmoid(score - t), (P, n), where t makes each network's sum equal its quota, to within
        half a weight (Newton's method; on a GPU a number of steps, whose results are not waited
        for).

        Args:
            flat: scores of the quota's weights, (P, n).
        """
        thresholds = torch.stack([member._thresholds[number] for member in members])
        keep = torch.stack([member._kept[number] for member in members])
        for _ in range(GPU_STEPS if flat.is_cuda else STEPS):
            p = torch.sigmoid(flat - thresholds[:, None].to(flat))
            excess, slope = p.sum(1).to(keep) - keep, (p * (1 - p)).sum(1).to(keep)
            found = (excess.abs() < 0.5) | (slope < 1e-3)
            if not flat.is_cuda and found.all():
                break
            # Steps of at most 1: far from the root the slope is misleading.
            thresholds = thresholds + (excess / slope).clamp(-1, 1).masked_fill(found, 0)
        for member, threshold in zip(members, thresholds, strict=True):
            member._thresholds[number] = threshold
        return p

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | {"thresholds": self._thresholds.double()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore(tensors)
        self._thresholds.copy_(tensors["thresholds"])
