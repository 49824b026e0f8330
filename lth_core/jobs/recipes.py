"""Recipes of trainings, starts, masks and measures, as values that name their parents.

A recipe describes how to make a thing, without making it. Its digest covers its parents' digests.
So the digest of a ticket covers its provenance back to the seed and the dataset, a plan counts
trainings without running one, and the store finds finished trainings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from lth_core.masks import Mask, State, ones
from lth_core.models.channels import Channels
from lth_core.models.costs import Costs
from lth_core.models.gates import GATE
from lth_core.models.latency import ChannelLatency
from lth_core.prune import PrunableNetwork, prune
from lth_core.seeds import generator
from lth_core.spec import (
    NOT_DECIDING,
    DataSpec,
    ModelSpec,
    PruneDuring,
    PruneGates,
    PruneNever,
    Pruning,
    TrainSpec,
    added_later,
    deciding,
    digest_of,
    spec_json,
)
from lth_core.spec.prune_base import LATENCIES

if TYPE_CHECKING:
    from torch import nn

    from lth_core.data import Dataset


class Context(Protocol):
    """Networks, data, weights and masks that recipes are made from."""

    def model(self, job: Job) -> nn.Module:
        """The job's network, for its structure."""

    def drawn(self, init: Init, job: Job) -> State:
        """Freshly drawn weights and buffers of the job's network."""

    def drawn_narrow(self, init: Init, job: Job, mask: Mask) -> State:
        """Freshly drawn weights and buffers of the job's network with the mask's channels alone, in
        the shapes of the whole network."""

    def start(self, job: Job) -> State:
        """Weights and buffers that a job starts from, before its mask."""

    def final(self, job: Job) -> tuple[State, Mask]:
        """Weights and buffers after a job's last step, and its final mask."""

    def mask(self, recipe: MaskRecipe, job: Job) -> Mask:
        """The mask of a recipe, for the job's network."""

    def prunable_network(
        self, state: State, mask: Mask, initial: State, job: Job, prune: Pruning
    ) -> PrunableNetwork:
        """The job's network with a state and a mask, for a score.

        Args:
            initial: weights at initialization.
            prune: the pruning that the score is for.
        """

    def network(self, job: Job, state: State) -> nn.Module:
        """The job's network with a state, on the device, in training mode."""

    def with_statistics(self, job: Job, state: State, mask: Mask) -> State:
        """The state, with batch norm's statistics of the job's network under a mask."""

    def given(self, ticket: Recipe) -> tuple[Mask, State]:
        """Mask and starting weights of a ticket that was found elsewhere, from the store."""

    def channels(self, job: Job) -> Channels:
        """Removable channels of the job's network; where it has gates, those with a gate."""

    def costs(self, job: Job) -> Costs:
        """Costs of the job's network without some of its channels."""

    def stored_latency(self, recipe: Recipe, job: Job) -> AbstractContextManager[ChannelLatency]:
        """Latency of the job's network without some of its channels, measured once for a recipe."""

    def data(self, job: Job) -> Dataset:
        """The job's data, on the device."""

    def training_cost(self, job: Job) -> tuple[float, float]:
        """FLOPs and seconds of a job's training; a backward pass counts as two forward passes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """Description of a computation; recipes with one digest are equal."""

    kind: ClassVar[str]
    """Name in digests; independent of the class's name, so that a rename keeps stored results."""

    @cached_property
    def digest(self) -> str:
        """sha256 over everything that decides the result of this recipe."""
        parts: dict[str, str] = {}
        for name in deciding(self):
            value = getattr(self, name)
            parts[name] = f'"{value.digest}"' if isinstance(value, Recipe) else spec_json(value)
        return digest_of(self.kind, parts)

    @property
    def parts(self) -> Iterator[Recipe]:
        """Recipes that this one is made from."""
        values = (getattr(self, each.name) for each in dataclasses.fields(self))
        return (value for value in values if isinstance(value, Recipe))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True, kw_only=True, eq=False)
class Start(Recipe):
    """Recipe of weights and buffers."""

    @property
    def root(self) -> Start:
        """The start of the first training in the chain of trainings."""
        return self

    def make(self, context: Context, job: Job) -> State:
        """Weights and buffers for the job's network, before its mask."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Init(Start):
    """Freshly drawn weights."""

    kind = "Init"

    seed: int
    draw: tuple[str | int, ...] = ("init",)
    """Purpose of the draw: ``("init",)``, or ``("reinit", level)``."""

    def make(self, context: Context, job: Job) -> State:
        return context.drawn(self, job)


@dataclass(frozen=True, kw_only=True, eq=False)
class WithGates(Start):
    """Weights of a network with gates, all of them 1, from those of the network without."""

    kind = "WithGates"

    of: Start

    @property
    def root(self) -> Start:
        return self.of.root

    def make(self, context: Context, job: Job) -> State:
        without = dataclasses.replace(job, model=dataclasses.replace(job.model, gates=False))
        gates = {
            name: torch.ones_like(parameter)
            for name, parameter in context.model(job).named_parameters()
            if name.endswith(GATE)
        }
        return {**self.of.make(context, without), **gates}


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskRecipe(Recipe):
    """Recipe of a mask."""

    like: MaskRecipe | None = None
    """For a control: the mask that it is compared with."""

    @property
    def structure(self) -> str:
        """Unit that is pruned as a whole, from the spec that finds the mask."""
        return "weights"

    @property
    def include(self) -> tuple[str, ...]:
        """Embeddings that the mask covers, from the spec that finds it; as in `PruneBase`."""
        return self.like.include if self.like else ()

    def make(self, context: Context, job: Job) -> Mask:
        """The mask, for the job's network."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Full(MaskRecipe):
    """Mask that keeps every weight."""

    kind = "Full"

    include: tuple[str, ...] = field(default=(), metadata=added_later(implied=()))

    def make(self, context: Context, job: Job) -> Mask:
        return ones(context.model(job), self.include)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned(MaskRecipe):
    """Mask of a network after pruning; weights that are already pruned stay so."""

    kind = "Pruned"

    of: Start
    """The network to score: a training's end, or a start."""
    prune: Pruning
    seed: int
    """Seed of the draw among equal scores."""
    whole: ModelSpec | None = field(default=None, metadata=added_later(implied=None))
    """Network of whose cost a budget is a share; None: the one that is pruned."""

    @property
    def structure(self) -> str:
        return self.prune.structure

    @property
    def include(self) -> tuple[str, ...]:
        return self.prune.include

    def make(self, context: Context, job: Job) -> Mask:
        pruned = self.of if isinstance(self.of, Job) else job
        if isinstance(self.of, Job):
            state, mask = context.final(self.of)
        else:
            state = self.of.make(context, job)
            mask = ones(context.model(job), self.include)
        initial = self.of.root.make(context, job)
        network = context.prunable_network(state, mask, initial, pruned, self.prune)
        ties = generator(self.seed, "mask", "ties")
        if LATENCIES.keys() & self.prune.budget.keys():
            with context.stored_latency(latencies_of(self, pruned), pruned) as latency:
                return prune(_with_costs(network, latency=latency), self.prune, ties)
        if self.whole:
            whole = context.costs(dataclasses.replace(job, model=self.whole))
            network = _with_costs(network, whole=whole)
        return prune(network, self.prune, ties)


@dataclass(frozen=True, kw_only=True, eq=False)
class Latencies(Recipe):
    """Latencies by which a mask was found that is made from no training."""

    kind = "Latencies"

    mask: Pruned
    model: ModelSpec
    data: DataSpec


def latencies_of(mask: Pruned, job: Job) -> Recipe:
    """Recipe of the latencies by which a job's mask was found: its digest is their store key.

    A mask that is pruned from a training belongs to one network. Another mask's recipe names none,
    so the network and the data are added.
    """
    if isinstance(mask.of, Job):
        return mask
    return Latencies(mask=mask, model=job.model, data=job.data)


def _with_costs(network: PrunableNetwork, **changes: Any) -> PrunableNetwork:
    """The network with changes to its costs."""
    costs = dataclasses.replace(network.costs(), **changes)
    return dataclasses.replace(network, costs=lambda: costs)


@dataclass(frozen=True, kw_only=True, eq=False)
class FinalMask(MaskRecipe):
    """The mask at the end of a training."""

    kind = "Found"

    by: Job
    """The training."""

    @property
    def structure(self) -> str:
        return self.by.finds.structure if self.by.finds else "weights"

    @property
    def include(self) -> tuple[str, ...]:
        return self.by.mask.include

    def make(self, context: Context, job: Job) -> Mask:
        return context.final(self.by)[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(Start):
    """One training run: from a start, under a mask, from step ``first`` to step ``last``.

    The learning rate and the position in the data order are those of steps first..last of the
    whole schedule in ``train``. As a start, a job means its final state.
    """

    kind = "Job"

    data: DataSpec
    model: ModelSpec
    train: TrainSpec
    """All durations in steps."""
    seed: int
    """Seed of the replicate: data order and augmentation."""
    level: int
    """Number of prunings before the run."""
    order: int = 0
    """Number of the data order: 0, or 1 for a twin."""
    start: Start
    """Weights and buffers before the first step."""
    mask: MaskRecipe
    """The mask at the first step."""
    finds: PruneDuring | PruneNever | PruneGates | None = None
    """Pruning that changes or learns the mask, or trains gates; None: the mask is fixed."""
    first: int
    last: int
    keep: tuple[int, ...] = field(default=(), metadata=NOT_DECIDING)
    """Steps whose state is stored as rewind points; they do not change the result."""
    dense: Job | None = field(default=None, metadata=NOT_DECIDING)
    """The dense run of the search; None: this is it."""

    def make(self, context: Context, job: Job) -> State:
        return context.final(self)[0]

    @property
    def root(self) -> Start:
        return self.start.root

    @property
    def structure(self) -> str:
        """Unit that is pruned as a whole by the mask at the end."""
        return self.finds.structure if self.finds else self.mask.structure

    @property
    def shrinks(self) -> bool:
        """Whether the mask loses weights in training."""
        return isinstance(self.finds, PruneDuring) and self.finds.shrinks

    @property
    def final_density_from(self) -> int:
        """Number of steps after which an evaluation has the mask's final density."""
        return self.finds.final_density_from if isinstance(self.finds, PruneDuring) else 0

    @property
    def run(self) -> str:
        """Name of the run within its replicate; data order and augmentation are drawn for it."""
        level = 0 if self.train.replay_order else self.level
        return f"{level}.{self.order}" if self.order else str(level)

    def at(self, step: int) -> Start:
        """The state of this run after ``step`` steps: its start, or the run ended at that step."""
        if step == self.first:
            return self.start
        return dataclasses.replace(self, last=step, keep=())


@dataclass(frozen=True, kw_only=True, eq=False)
class Measure(Recipe):
    """Numbers of finished trainings, stored under the recipe's digest."""

    columns: ClassVar[tuple[str, ...]]
    """Columns of the measure; a stored measure that lacks one is taken again."""

    def take(self, context: Context) -> dict[str, float | None]:
        """Numbers by column; None where a number is not defined."""
        raise NotImplementedError
