"""Branches: what is trained at a level, each a job made from the dense run and the ticket's mask.

All branches of a level train as long, on the same batches, at the same learning rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lth_core.jobs import Init, Job, Lab, MaskRecipe
from lth_core.masks import Mask
from lth_core.seeds import generator

Branch = Callable[[Job], Job]
"""From a level's ticket job to the branch's own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomMask(MaskRecipe):
    """As many weights a layer as in ``like``, drawn at random; nested over levels of one seed."""

    like: MaskRecipe
    seed: int

    def make(self, lab: Lab, job: Job) -> Mask:
        drawn = {}
        for name, mask in lab.mask(self.like, job).items():
            # One ranking per layer and seed, whatever the level: the densest prefix is kept.
            stream = generator(self.seed, "mask", "random", name)
            rank = torch.randperm(mask.numel(), generator=stream)
            drawn[name] = (rank < int(mask.sum())).view(mask.shape)
        return drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class ShuffledMask(MaskRecipe):
    """The mask ``like`` with the entries of each layer permuted, anew at each level."""

    like: MaskRecipe
    seed: int
    level: int

    def make(self, lab: Lab, job: Job) -> Mask:
        shuffled = {}
        for name, mask in lab.mask(self.like, job).items():
            stream = generator(self.seed, "mask", "shuffled", self.level, name)
            order = torch.randperm(mask.numel(), generator=stream)
            shuffled[name] = mask.reshape(-1)[order].view(mask.shape)
        return shuffled


def ticket(job: Job) -> Job:
    """The ticket's mask on the weights of the rewind point."""
    return job


def reinit(job: Job) -> Job:
    """The ticket's mask on freshly drawn weights (Frankle & Carbin 2019, section 2)."""
    return replace(job, start=Init(seed=job.seed, draw=("reinit", job.level)))


def random_mask(job: Job) -> Job:
    """The rewind point's weights under a random mask with the ticket's layer counts."""
    return replace(job, mask=RandomMask(like=job.mask, seed=job.seed))


def shuffled_mask(job: Job) -> Job:
    """The rewind point's weights under the ticket's mask, permuted within each layer."""
    return replace(job, mask=ShuffledMask(like=job.mask, seed=job.seed, level=job.level))


BRANCHES: dict[str, Branch] = {
    "ticket": ticket,
    "reinit": reinit,
    "random_mask": random_mask,
    "shuffled_mask": shuffled_mask,
}
