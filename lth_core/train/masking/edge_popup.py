"""edge-popup (Ramanujan et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Self

import torch
from torch import Tensor, nn

from lth_core.masks import Mask
from lth_core.prune.top_k import kth_lowest_of_rows
from lth_core.spec import Pruning
from lth_core.train.masking.learned import Learned, Tensors, in_rows

LEAST_REACH, MOST_REACH = 0.01, 0.3
"""Least and largest relative distance from the last threshold within which the next one is looked
for first."""


class EdgePopup(Learned):
    """A learned score for each frozen weight; the highest stay (Ramanujan et al. 2020).

    Scores are ranked by absolute value, as in the authors' code (the paper calls scores positive).
    The loss is computed under the mask of the highest, and differentiated in the absolute values as
    if they multiplied the weights (straight-through). During training, scores equal to the
    threshold are all pruned; in the final mask a draw decides among them.

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> prune = PruneSpec(when="never", score="edge-popup", fraction=0.5, lr=0.05)
    >>> *_, level = find_tickets(TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1))
    >>> level.records[0]["method"], round(level.ticket.density, 2)
    ('edge-popup', 0.5)
    """

    def __init__(self, model: nn.Module, mask: Mask, spec: Pruning, seed: int, level: int) -> None:
        super().__init__(model, mask, spec, seed, level)
        self._thresholds: dict[int, tuple[float, float]] = {}
        """Highest pruned scores of the last step and the one before, by number of the quota."""

    def initial_scores(self, weight: Tensor, draws: torch.Generator) -> Tensor:
        """Uniform within 1/sqrt(fan in), as in the authors' code."""
        bound = 1 / sqrt(max(1, weight[0].numel()))
        drawn = torch.rand(weight.shape, generator=draws) * 2 * bound - bound
        return torch.empty_like(weight).copy_(drawn)

    def ranking(self, score: Tensor) -> Tensor:
        return score.abs()

    @classmethod
    def score_gradients(
        cls, members: Sequence[Self], name: str, scores: Tensor, gradients: Tensor
    ) -> Tensor:
        return gradients.mul_(scores.detach().sign())

    @classmethod
    def step_masks(cls, members: Sequence[Self], scores: Tensors, step: int) -> Tensors:
        masks: dict[str, Tensor] = {}
        for number, (names, _) in enumerate(members[0].quotas):
            flat = in_rows(members[0].ranking(scores[name].detach()) for name in names)
            thresholds = cls._thresholds_of(members, number, flat)
            # torch writes the result of a comparison faster as floats than as bools.
            chosen = torch.gt(flat, thresholds[:, None], out=torch.empty_like(flat))
            masks |= cls.by_layer(names, chosen, scores)
        return masks

    @classmethod
    def _thresholds_of(cls, members: Sequence[Self], number: int, flat: Tensor) -> Tensor:
        """Highest pruned score of each network, (P,), in a quota; below all where none is pruned.

        Args:
            flat: ranked values of the quota's weights, (P, n).
        """
        ks = [flat.shape[1] - member.quotas[number][1] for member in members]
        near = [member._near(number) for member in members]
        thresholds = kth_lowest_of_rows(flat, [max(1, k) for k in ks], near)
        if not flat.is_cuda:  # where they would have to be waited for
            for member, threshold in zip(members, thresholds.tolist(), strict=True):
                last, _ = member._thresholds.get(number, (threshold, threshold))
                member._thresholds[number] = threshold, last
        if 0 in ks:
            pruned = torch.tensor([k > 0 for k in ks], device=flat.device)
            thresholds = torch.where(pruned, thresholds, -1.0)
        return thresholds

    def _near(self, number: int) -> tuple[float, float] | None:
        """Range in which a quota's next threshold probably lies: it moves about as far as last."""
        if number not in self._thresholds:
            return None
        last, before = self._thresholds[number]
        reach = min(max(LEAST_REACH * last, 4 * abs(last - before)), MOST_REACH * last)
        return last - reach, last + reach
