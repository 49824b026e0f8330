"""Sparse evolutionary training (Mocanu et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_core.train.regrowth import Regrowth


class SET(Regrowth):
    """As many as go come back, drawn: SET (Mocanu et al. 2018).

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> prune = PruneSpec(when="during", grow="random", fraction=0.9)
    >>> *_, level = find_tickets(TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1))
    >>> level.records()[0]["method"], round(level.ticket.density, 2)
    ('set', 0.1)
    """

    def wanted(self, weight: nn.Parameter, draws: torch.Generator) -> Tensor:
        return torch.rand(weight.shape, generator=draws)
