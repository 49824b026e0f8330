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
        self._thresholds = [0.0] * len(self.quotas)
        self._probabilities: dict[str, Tensor] = {}

    def initial_scores(self, weight: Tensor, draws: torch.Generator) -> Tensor:
        return torch.zeros_like(weight)

    @classmethod
    def step_masks(cls, members: Sequence[Self], scores: Tensors, step: int) -> Tensors:
        tried = [member._tried(step) for member in members]
        return {name: torch.stack([masks[name] for masks in tried]) for name in scores}

    @classmethod
    def score_gradients(
        cls, members: Sequence[Self], name: str, scores: Tensor, gradients: Tensor
    ) -> Tensor:
        """Gradients times the derivative of the probabilities in the scores, p (1 - p)."""
        p = torch.stack([member._probabilities[name] for member in members])
        return gradients * (p * (1 - p))

    def _tried(self, step: int) -> dict[str, Tensor]:
        """A mask drawn for a step, (out, in, ...) of 0 and 1 as floats."""
        self._probabilities = self._probabilities_by_quota()
        draws = generator(self.seed, "mask", "tried", self.level, step)
        return {
            name: (torch.rand(p.shape, generator=draws).to(p.device) < p).to(p.dtype)
            for name, p in self._probabilities.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        thresholds = torch.tensor(self._thresholds, dtype=torch.float64)
        return super().tensors() | {"thresholds": thresholds}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore(tensors)
        self._thresholds = tensors["thresholds"].tolist()

    def _probabilities_by_quota(self) -> dict[str, Tensor]:
        """sigmoid(score - t), where t makes each group's sum equal its quota (Newton's method)."""
        probabilities: dict[str, Tensor] = {}
        for i, (names, keep) in enumerate(self.quotas):
            scores = {name: self.scores[name].detach()[None] for name in names}
            flat = in_rows(scores.values())
            for _ in range(50):
                p = torch.sigmoid(flat - self._thresholds[i])
                excess, slope = float(p.sum()) - keep, float((p * (1 - p)).sum())
                if abs(excess) < 0.5 or slope < 1e-3:
                    break
                # Steps of at most 1: far from the root the slope is misleading.
                self._thresholds[i] += max(-1.0, min(1.0, excess / slope))
            by_layer = self.by_layer(names, p, scores)
            probabilities |= {name: part[0] for name, part in by_layer.items()}
        return probabilities
