"""The rigged lottery (Evci et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_core.train.regrowth import Regrowth


class RigL(Regrowth):
    """As many as go come back, of the largest gradient: RigL (Evci et al. 2020).

    Where gradients are equal, as those of dead units are, it is drawn.

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> prune = PruneSpec(when="during", grow="gradient", fraction=0.9)
    >>> *_, level = find_tickets(TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1))
    >>> level.records()[0]["method"], round(level.ticket.density, 2)
    ('rigl', 0.1)
    """

    def wanted(self, weight: nn.Parameter, draws: torch.Generator) -> Tensor:
        assert weight.grad is not None
        return weight.grad.abs().float().cpu()
