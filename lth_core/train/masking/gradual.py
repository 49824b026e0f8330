"""Gradual magnitude pruning: the mask shrinks while the weights train (Zhu & Gupta 2017)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.masks import Mask
from lth_core.prune.network import PrunableNetwork
from lth_core.prune.select import pruned_to
from lth_core.seeds import generator
from lth_core.spec import PruneDuring
from lth_core.spec.fields import steps_in
from lth_core.train.masking.base import Fixed


class GMP(Fixed):
    """Pruned weights stay pruned: gradual magnitude pruning, GMP (Zhu & Gupta 2017).

    At each change the lowest-scored weights are pruned to the schedule's density. Ties are broken
    by a seeded draw. Where layers compete, the last weight of a layer may be pruned.

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> prune = PruneSpec(when="during", fraction=0.9)
    >>> *_, level = find_tickets(TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1))
    >>> level.records[0]["method"], round(level.ticket.density, 2)
    ('gmp', 0.1)

    Args:
        mask: (out, in, ...) bool by parameter name; the mask at the first step.
        network: the network at the start of the run, for scores; its spec has the settings.
        level: seeds, with the network's seed, the draws among equal scores and of regrowth.
        removed_with: as in `Fixed`.
    """

    def __init__(
        self,
        model: nn.Module,
        mask: Mask,
        network: PrunableNetwork,
        level: int,
        removed_with: Callable[[Mask], Mask] = lambda mask: {},
    ) -> None:
        super().__init__(model, mask, removed_with)
        self.network, self.level = network, level
        spec = network.spec
        assert isinstance(spec, PruneDuring)
        self.spec = spec
        self.begin, self.end = steps_in(spec.begin), steps_in(spec.end)
        self.every = steps_in(spec.every)
        self.start = {name: torch.ones_like(m) for name, m in mask.items()}

    @torch.enable_grad()  # a score may differentiate
    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        """Change the mask where a change is due."""
        due = (step - self.begin) % self.every == 0 or step == self.end
        if not self.begin <= step <= self.end or not due:
            return True
        progress = (step - self.begin) / (self.end - self.begin)
        draws = generator(self.network.seed, "mask", "change", self.level, step)
        pruned = pruned_to(self.prunable_network(self.mask), self.start, self.spec, progress, draws)
        return self.change(pruned, progress, optimizer, draws)

    def change(
        self, pruned: Mask, progress: float, optimizer: Optimizer, draws: torch.Generator
    ) -> bool:
        """Apply a mask of the schedule's density; return whether the optimizer takes its step.

        Args:
            pruned: (out, in, ...) bool each, by parameter name.
            progress: in [0, 1], 1 at the last change.
        """
        self.set_mask(pruned)
        self.after_step()
        return True

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.mask)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.set_mask({name: tensors[name] for name in self.mask})

    def prunable_network(self, mask: Mask) -> PrunableNetwork:
        """The current network, for a score.

        Args:
            mask: (out, in, ...) bool each, by parameter name.
        """
        parameters = dict(self.model.named_parameters())
        weights = {name: parameters[name].detach().cpu().clone() for name in mask}
        masks, initial = (
            {name: value.clone() for name, value in each.items()}
            for each in (mask, self.network.initial)
        )
        return replace(  # of copies, in which a user's score may work
            self.network, weights=weights, mask=masks, initial=initial,
            copy=lambda: copy.deepcopy(self.model),
        )  # fmt: skip
