"""edge-popup (Ramanujan et al. 2020)."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from lth_core.masks import Mask
from lth_core.prune.top_k import kth_lowest
from lth_core.spec import Pruning
from lth_core.train.masking.learned import Learned


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
        self._thresholds: dict[int, float] = {}
        """Highest pruned score of the last step, by number of the quota: the next one is near."""

    def initial_scores(self, weight: Tensor, draws: torch.Generator) -> Tensor:
        """Uniform within 1/sqrt(fan in), as in the authors' code."""
        bound = 1 / sqrt(max(1, weight[0].numel()))
        drawn = torch.rand(weight.shape, generator=draws) * 2 * bound - bound
        return torch.empty_like(weight).copy_(drawn)

    def ranking(self, score: Tensor) -> Tensor:
        return score.abs()

    def score_gradient(self, name: str, gradient: Tensor) -> Tensor:
        return gradient.mul_(self.scores[name].detach().sign())

    def step_mask(self, step: int) -> Mask:
        mask: Mask = {}
        for number, (names, keep) in enumerate(self.quotas):
            flat = self.flat_ranking(names)
            chosen = torch.ones_like(flat, dtype=torch.bool)
            if keep < len(flat):
                guess = self._thresholds.get(number)
                threshold = kth_lowest(flat, len(flat) - keep, guess)
                if not flat.is_cuda:  # where it would have to be waited for
                    self._thresholds[number] = float(threshold)
                chosen = flat > threshold
            mask |= self.split_by_layer(names, chosen)
        return mask
