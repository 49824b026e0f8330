"""Masks and starting weights of controls, as recipes made from the ticket's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lth_core.jobs.recipes import Context, Job, MaskRecipe, Start
from lth_core.masks import Mask, State
from lth_core.prune.structure import as_many
from lth_core.seeds import generator


@dataclass(frozen=True, kw_only=True, eq=False)
class AsMany(MaskRecipe):
    """In each layer as many units as in ``like``, other ones: its channels where it keeps channels,
    in every group of M weights as many where it keeps N of them."""

    like: MaskRecipe
    seed: int

    def make(self, context: Context, job: Job) -> Mask:
        return {
            name: as_many(mask, self.like.structure, partial(self.order, name))
            for name, mask in context.mask(self.like, job).items()
        }

    def order(self, name: str, kept: Tensor) -> Tensor:
        """A layer's units, the first ones to be kept.

        Args:
            kept: (groups, units) bool: which ``like`` keeps.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomMask(AsMany):
    """Drawn at random; nested over levels of one seed."""

    kind = "RandomMask"

    def order(self, name: str, kept: Tensor) -> Tensor:
        # One ranking per layer and seed, whatever the level: the densest prefix is kept.
        return _drawn(kept, generator(self.seed, "mask", "random", name))


@dataclass(frozen=True, kw_only=True, eq=False)
class ShuffledMask(AsMany):
    """The entries of each layer permuted, anew at each level."""

    kind = "ShuffledMask"

    level: int

    def order(self, name: str, kept: Tensor) -> Tensor:
        return _drawn(kept, generator(self.seed, "mask", "shuffled", self.level, name))


@dataclass(frozen=True, kw_only=True, eq=False)
class InvertedMask(AsMany):
    """First of all those that ``like`` prunes, drawn at random.

    Where a layer keeps more than half, that is all it prunes and some of the rest.
    """

    kind = "InvertedMask"

    def order(self, name: str, kept: Tensor) -> Tensor:
        return _drawn(kept, generator(self.seed, "mask", "inverted", name)) + kept * kept.numel()


def _drawn(kept: Tensor, stream: torch.Generator) -> Tensor:
    """A place for each unit, as floats: two of a layer never share one."""
    places = torch.randperm(kept.numel(), generator=stream, dtype=torch.float64)
    return places.view(kept.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class ConstantSign(Start):
    """Each prunable weight of a start as its sign times the deviation of its layer's weights."""

    kind = "ConstantSign"

    of: Start

    def make(self, context: Context, job: Job) -> State:
        state = dict(self.of.make(context, job))
        for name in context.mask(job.mask, job):
            state[name] = state[name].sign() * state[name].std(correction=0)
        return state


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshuffled(Start):
    """A start whose surviving weights are permuted within their layer."""

    kind = "Reshuffled"

    of: Start
    seed: int
    level: int

    def make(self, context: Context, job: Job) -> State:
        state = dict(self.of.make(context, job))
        for name, mask in context.mask(job.mask, job).items():
            stream = generator(self.seed, "init", "reshuffled", self.level, name)
            state[name] = state[name].clone()
            kept = state[name][mask]
            state[name][mask] = kept[torch.randperm(len(kept), generator=stream)]
        return state
