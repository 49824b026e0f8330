"""Sparse training in which pruned weights grow back: SET, RigL and their shared base."""

from __future__ import annotations

from abc import abstractmethod
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.masks import Mask
from lth_core.prune.scores import scores_of
from lth_core.prune.top_k import lowest
from lth_core.train.masking.gradual import GMP


class Regrowth(GMP):
    """At each change but the last, each layer also swaps a share of its weights for others.

    The share falls to 0 as a cosine. Grown weights start at 0; a weight that one change drops and
    grows keeps its value (Evci et al. 2020: `reinit_when_same=False` in their code). A layer with
    one weight swaps none, because its share rounds to 0. Dense and empty layers swap none either.
    """

    @abstractmethod
    def regrowth_priority(self, weight: nn.Parameter, draws: torch.Generator) -> Tensor:
        """Priorities for regrowth, (out, in, ...) float32 on the CPU; the highest grow first."""

    def change(
        self, pruned: Mask, progress: float, optimizer: Optimizer, draws: torch.Generator
    ) -> bool:
        """GMP's change, with a swap; the optimizer takes no step after it."""
        if progress == 1:
            return super().change(pruned, progress, optimizer, draws)
        share = self.spec.swap * (1 + cos(pi * progress)) / 2
        super().change(self._swapped(pruned, share, optimizer, draws), progress, optimizer, draws)
        return False

    def _swapped(
        self, mask: Mask, share: float, optimizer: Optimizer, draws: torch.Generator
    ) -> Mask:
        """The mask after each layer drops round(share x kept) weights and grows as many.

        Weights that were not in the mask before this change start at 0.
        """
        scores = scores_of(self.prunable_network(mask), self.spec.score)
        parameters, swapped = dict(self.model.named_parameters()), dict(mask)
        for name, alive in mask.items():
            if bool(alive.all()):  # a dense layer has nothing to grow
                continue
            n = round(share * int(alive.sum()))
            left = alive.clone()
            left[alive] = ~lowest(scores[name][alive], n, draws)
            grown = torch.zeros_like(alive)
            grown[~left] = lowest(-self.regrowth_priority(parameters[name], draws)[~left], n, draws)
            swapped[name] = left | grown
            # `mask` may lack a weight that this change's schedule pruned; `self.mask` has it still.
            _start_at_zero(parameters[name], grown & ~self.mask[name], optimizer)
        return swapped


def _start_at_zero(weight: nn.Parameter, new: Tensor, optimizer: Optimizer) -> None:
    """Set new weights and their optimizer state (momentum) to 0, in place."""
    where = new.to(weight.device)
    with torch.no_grad():
        weight.masked_fill_(where, 0)
        for value in optimizer.state.get(weight, {}).values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value.masked_fill_(where, 0)


class SET(Regrowth):
    """Regrowth at random, as many weights as are dropped: SET (Mocanu et al. 2018).

    Masks change after the optimizer's step.

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> prune = PruneSpec(when="during", grow="random", fraction=0.9)
    >>> *_, level = find_tickets(TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1))
    >>> level.records[0]["method"], round(level.ticket.density, 2)
    ('set', 0.1)
    """

    _due: tuple[int, Optimizer] | None = None
    """The step in progress, and its optimizer."""

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        self._due = step, optimizer
        return True

    def after_step(self) -> None:
        super().after_step()
        if self._due:
            due, self._due = self._due, None
            super().before_step(*due)

    def regrowth_priority(self, weight: nn.Parameter, draws: torch.Generator) -> Tensor:
        return torch.rand(weight.shape, generator=draws)


class RigL(Regrowth):
    """Regrowth by gradient, as many weights as are dropped: RigL (Evci et al. 2020).

    A swap takes the place of the optimizer's step. Ties, such as the zero gradients of dead units,
    are broken by a seeded draw.

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> prune = PruneSpec(when="during", grow="gradient", fraction=0.9)
    >>> *_, level = find_tickets(TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1))
    >>> level.records[0]["method"], round(level.ticket.density, 2)
    ('rigl', 0.1)
    """

    def regrowth_priority(self, weight: nn.Parameter, draws: torch.Generator) -> Tensor:
        if weight.grad is None:  # the network skipped the layer in this step
            return torch.zeros(weight.shape)
        return weight.grad.abs().float().cpu()
