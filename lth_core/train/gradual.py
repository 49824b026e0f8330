"""Masks that change while the weights train: gradual magnitude pruning, SET, RigL.

At each change the lowest-scored weights go until the schedule's density is reached (GMP, Zhu &
Gupta 2017: cubic). Where pruned weights grow back, each layer also swaps a share of its weights,
the lowest-scored for others, drawn (SET, Mocanu et al. 2018) or of the largest gradient (RigL, Evci
et al. 2020); then the density may stay the same from the first step on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.checks import steps_in
from lth_core.masks import Mask
from lth_core.prune import lowest
from lth_core.prune.candidate import Candidate
from lth_core.prune.scores import scores_of
from lth_core.prune.select import pruned_to
from lth_core.seeds import generator
from lth_core.train.masking import Fixed

GROW = {
    "none": "Pruned weights stay pruned: gradual magnitude pruning, GMP (Zhu & Gupta 2017).",
    "random": "As many as go come back, drawn: SET (Mocanu et al. 2018).",
    "gradient": "As many as go come back, of the largest gradient: RigL (Evci et al. 2020).",
}


class Gradual(Fixed):
    """Changes the mask every so often, on the gradients of that step's batch.

    Equal scores are drawn. A layer that keeps one weight swaps none, for a share of one rounds to
    none; nor does a dense one, or one without survivors, which stays so.

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> for grow in ("none", "random", "gradient"):  # GMP, SET, RigL
    ...     prune = PruneSpec(when="during", grow=grow, fraction=0.9)
    ...     spec = TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1)
    ...     *_, level = find_tickets(spec)
    ...     print(level.records()[0]["method"], round(level.ticket.density, 2))
    gmp 0.1
    set 0.1
    rigl 0.1

    Args:
        mask: the one to begin with; nothing outside it, and none inside, need ever stay.
        network: what scores look at, as the run begins; its spec says when and how.
        level: draws, with the network's seed, among equal scores, and what grows back.
    """

    def __init__(self, model: nn.Module, mask: Mask, network: Candidate, level: int) -> None:
        super().__init__(model, mask)
        self.network, self.level = network, level
        self.spec = spec = network.spec
        self.begin, self.end = steps_in(spec.begin), steps_in(spec.end)
        self.every = steps_in(spec.every)
        self.start = {name: torch.ones_like(m) for name, m in mask.items()}

    @torch.enable_grad()  # a score may differentiate
    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        """Change the mask where it is time to; where weights are swapped, that is the step."""
        due = (step - self.begin) % self.every == 0 or step == self.end
        if not self.begin <= step <= self.end or not due:
            return True
        progress = (step - self.begin) / max(1, self.end - self.begin)
        draws = generator(self.network.seed, "mask", "change", self.level, step)
        pruned = pruned_to(self._candidate(self.mask), self.start, self.spec, progress, draws)
        if self.spec.grow == "none" or step == self.end:
            self.set(pruned)
            self.after_step()
            return True
        self._swap(pruned, self.spec.swap * (1 + cos(pi * progress)) / 2, optimizer, draws)
        return False

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.mask)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.set({name: tensors[name] for name in self.mask})

    def _swap(self, mask: Mask, share: float, optimizer: Optimizer, draws: torch.Generator) -> None:
        """In each layer, drop round(share x kept) weights and grow as many, from 0."""
        scores = scores_of(self._candidate(mask), self.spec.score)
        parameters, swapped = dict(self.model.named_parameters()), dict(mask)
        for name, alive in mask.items():
            if bool(alive.all()):  # a dense layer has nothing to grow
                continue
            n = round(share * int(alive.sum()))
            left = alive.clone()
            left[alive] = ~lowest(scores[name][alive], n, draws)
            grown = torch.zeros_like(alive)
            grown[~left] = lowest(-self._wanted(parameters[name], draws)[~left], n, draws)
            swapped[name] = left | grown
            _start_at_zero(parameters[name], grown, optimizer)
        self.set(swapped)
        self.after_step()

    def _wanted(self, weight: nn.Parameter, draws: torch.Generator) -> Tensor:
        """What the highest of grow back."""
        if self.spec.grow == "random":
            return torch.rand(weight.shape, generator=draws)
        assert weight.grad is not None
        return weight.grad.abs().float().cpu()

    def _candidate(self, mask: Mask) -> Candidate:
        parameters = dict(self.model.named_parameters())
        weights = {name: parameters[name].detach().cpu() for name in mask}
        return replace(
            self.network, weights=weights, mask=mask, copy=lambda: copy.deepcopy(self.model)
        )


def _start_at_zero(weight: nn.Parameter, grown: Tensor, optimizer: Optimizer) -> None:
    """Weights that grow back are 0, and forget the momentum of what was there."""
    where = grown.to(weight.device)
    with torch.no_grad():
        weight.masked_fill_(where, 0)
        for value in optimizer.state.get(weight, {}).values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                value.masked_fill_(where, 0)
