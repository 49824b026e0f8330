"""Recipes of controls: masks and starting weights made from the ticket's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lth_core.jobs.recipes import Context, Init, Job, MaskRecipe, Start
from lth_core.masks import Mask, State
from lth_core.models.channels import Kept
from lth_core.prune.structure import ChannelUnits, Units, WeightUnits, n_of_m_like
from lth_core.seeds import generator
from lth_core.spec.prune_base import CHANNELS, pattern_of


@dataclass(frozen=True, kw_only=True, eq=False)
class SameCounts(MaskRecipe):
    """Mask that keeps as many units of each layer as ``like``, by another ranking.

    The units are those of ``like``: weights, channels, neurons, or N weights of every M.
    """

    like: MaskRecipe
    seed: int

    @property
    def structure(self) -> str:
        return self.like.structure

    def make(self, context: Context, job: Job) -> Mask:
        mask = context.mask(self.like, job)
        if pattern := pattern_of(self.structure):
            return {n: n_of_m_like(m, pattern[1], partial(self.rank, n)) for n, m in mask.items()}
        channels = self.structure in CHANNELS
        units: Units = ChannelUnits(context.channels(job)) if channels else WeightUnits()
        chosen: Kept = {}
        for name in units.names(list(mask)):
            kept = units.alive(mask, name)
            places = self.rank(name, kept[None])[0].argsort().argsort()
            chosen[name] = places < kept.sum()
        full = {name: torch.ones_like(m) for name, m in mask.items()}
        return units.mask(chosen, full)

    def rank(self, name: str, kept: Tensor) -> Tensor:
        """Ranks of a layer's units, (groups, units) float64; the lowest are kept.

        Args:
            name: name of the layer's parameter.
            kept: (groups, units) bool, True for units that ``like`` keeps.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomMask(SameCounts):
    """Mask with units drawn at random; masks of one seed are nested over levels."""

    kind = "RandomMask"

    def rank(self, name: str, kept: Tensor) -> Tensor:
        # One ranking for each layer and seed at all levels, so the masks are nested.
        return _random_ranks(kept, generator(self.seed, "mask", "random", name))


@dataclass(frozen=True, kw_only=True, eq=False)
class ShuffledMask(SameCounts):
    """Mask whose units are permuted within each layer, anew at each level."""

    kind = "ShuffledMask"

    level: int

    def rank(self, name: str, kept: Tensor) -> Tensor:
        return _random_ranks(kept, generator(self.seed, "mask", "shuffled", self.level, name))


@dataclass(frozen=True, kw_only=True, eq=False)
class InvertedMask(SameCounts):
    """Mask of units that ``like`` prunes, drawn at random.

    Where ``like`` keeps more than half of a layer, they are too few, so others are drawn as well.
    """

    kind = "InvertedMask"

    def rank(self, name: str, kept: Tensor) -> Tensor:
        ranks = _random_ranks(kept, generator(self.seed, "mask", "inverted", name))
        return ranks + kept * kept.numel()


def _random_ranks(kept: Tensor, stream: torch.Generator) -> Tensor:
    """Distinct random rank of each unit, (groups, units) float64."""
    ranks = torch.randperm(kept.numel(), generator=stream, dtype=torch.float64)
    return ranks.view(kept.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class ConstantSign(Start):
    """Start with each prunable weight set to its sign times its layer's standard deviation."""

    kind = "ConstantSign"

    of: Start

    def make(self, context: Context, job: Job) -> State:
        state = dict(self.of.make(context, job))
        for name in context.mask(job.mask, job):
            state[name] = state[name].sign() * state[name].std(correction=0)
        return state


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshuffled(Start):
    """Start whose surviving weights are permuted within their layer."""

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


@dataclass(frozen=True, kw_only=True, eq=False)
class WithStatistics(Start):
    """Start with batch norm's statistics over the training examples, for a run of no steps: those
    of `of` belong to other weights, as the initialization's, which are 0 and 1."""

    kind = "WithStatistics"

    of: Start

    def make(self, context: Context, job: Job) -> State:
        return context.with_statistics(job, self.of.make(context, job), context.mask(job.mask, job))


@dataclass(frozen=True, kw_only=True, eq=False)
class FreshlyNarrow(Start):
    """Fresh weights of the network that has only the mask's channels, drawn for its widths.

    An initialization by fan in is of the inputs that are left, as in a network that is built
    smaller.
    """

    kind = "FreshlyNarrow"

    seed: int
    level: int

    def make(self, context: Context, job: Job) -> State:
        init = Init(seed=self.seed, draw=("narrow", self.level))
        return context.drawn_narrow(init, job, context.mask(job.mask, job))
