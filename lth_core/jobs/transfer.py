"""Recipes of a ticket that another search has found, possibly with other data or another optimizer.

Morcos et al. 2019 (One ticket to win them all) transfer tickets so. The recipes hold the ticket's
digest, so results depend on its content, wherever it came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lth_core.errors import SpecError
from lth_core.jobs.recipes import Context, Init, Job, MaskRecipe, Recipe, Start
from lth_core.masks import Mask, State, ones

Shapes = Mapping[str, Sequence[int]]
"""Shape of each prunable parameter by name, in the network's order; the last is the output's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenTicket(Recipe):
    """A ticket that was found elsewhere; the store has it under this recipe's digest."""

    kind = "GivenTicket"

    content: str
    """The ticket's digest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenMask(MaskRecipe):
    """A given ticket's mask; all weights of an output layer with another number of classes."""

    kind = "GivenMask"

    ticket: GivenTicket
    include: tuple[str, ...] = field(default=())

    def make(self, context: Context, job: Job) -> Mask:
        mask, _ = context.given(self.ticket)
        full = ones(context.model(job), self.include)
        return {name: _if_alike(mask[name], whole) for name, whole in full.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenWeights(Start):
    """A given ticket's weights and buffers, with fresh weights where the ticket has none: those
    that it prunes, which a random mask may keep, and an output layer of other classes."""

    # Not "GivenStart", as it was: results under that kind may have had another ticket's weights.
    kind = "GivenWeights"

    ticket: GivenTicket
    fresh: Init

    def make(self, context: Context, job: Job) -> State:
        mask, start = context.given(self.ticket)

        def value(name: str, drawn: Tensor) -> Tensor:
            given = start.get(name)
            if given is None or given.shape != drawn.shape:
                return drawn
            return torch.where(mask[name], given, drawn) if name in mask else given

        return {name: value(name, t) for name, t in self.fresh.make(context, job).items()}


def _if_alike(mask: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return mask if mask.shape == whole.shape else whole


def check_layers_alike(ticket: Shapes, network: Shapes) -> None:
    """Check that a ticket fits a network: equal prunable layers, but for the number of classes.

    Raises:
        SpecError: they differ; names the first difference.
    """
    rule = "must have the network's prunable layers"
    if ticket.keys() != network.keys():
        raise SpecError("ticket", rule, sorted(ticket), network)
    *_, output = network
    for name, shape in network.items():
        first = 1 if name == output else 0
        if tuple(ticket[name][first:]) != tuple(shape[first:]):
            raise SpecError(
                "ticket", f"{rule}: {name} of shape {tuple(shape)}", tuple(ticket[name])
            )
