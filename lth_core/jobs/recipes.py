"""Recipes: what to train, from which start, under which mask, as values that name their parents.

A recipe says how a thing comes about without making it. Its digest covers the digests of the
recipes it is made from, so every ticket carries its provenance back to the seed and the dataset,
a plan can count trainings without running one, and the store finds what was already trained.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol

from lth_core.masks import Mask, State, ones
from lth_core.prune import Candidate, prune
from lth_core.seeds import generator
from lth_core.spec import (
    WHERE,
    DataSpec,
    ModelSpec,
    PruneDuring,
    PruneNever,
    Pruning,
    TrainSpec,
    deciding,
    digest_of,
    spec_json,
)

if TYPE_CHECKING:
    from torch import nn

    from lth_core.data import Dataset


class Context(Protocol):
    """Things made from other recipes, which a recipe needs to be carried out."""

    def model(self, job: Job) -> nn.Module:
        """The job's network, for its structure."""

    def drawn(self, init: Init, job: Job) -> State:
        """The weights and buffers of the job's network, freshly drawn."""

    def start(self, job: Job) -> State:
        """Weights and buffers that a job starts from, before its mask."""

    def final(self, job: Job) -> tuple[State, Mask]:
        """Weights and buffers after a job's last step, and its mask then."""

    def mask(self, recipe: MaskRecipe, job: Job) -> Mask:
        """The mask a recipe gives for the job's network."""

    def candidate(
        self, state: State, mask: Mask, initial: State, job: Job, prune: Pruning
    ) -> Candidate:
        """A state of the job's network, for a score."""

    def network(self, job: Job, state: State) -> nn.Module:
        """The job's network with a state, on the device, in training mode."""

    def data(self, job: Job) -> Dataset:
        """The job's data, on the device."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """Equal when made the same way."""

    kind: ClassVar[str]
    """Name in digests. It outlives the class's name: a rename discards nothing that is stored."""

    @cached_property
    def digest(self) -> str:
        """sha256 over everything that decides what this recipe makes."""
        parts: dict[str, str] = {}
        for name in deciding(self):
            value = getattr(self, name)
            parts[name] = f'"{value.digest}"' if isinstance(value, Recipe) else spec_json(value)
        return digest_of(self.kind, parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True, kw_only=True, eq=False)
class Start(Recipe):
    """The origin of weights and buffers."""

    @property
    def root(self) -> Start:
        """The start at the beginning of the chain, which is no training."""
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
class MaskRecipe(Recipe):
    """Way to make a mask."""

    like: MaskRecipe | None = None
    """The mask it imitates, for a control."""

    @property
    def structure(self) -> str:
        """The unit that is pruned as a whole: the structure of the spec that finds the mask."""
        return "weights"

    def make(self, context: Context, job: Job) -> Mask:
        """The mask, for the job's network."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Full(MaskRecipe):
    """Every weight kept."""

    kind = "Full"

    def make(self, context: Context, job: Job) -> Mask:
        return ones(context.model(job))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned(MaskRecipe):
    """The survivors of a network under its own mask, once pruned."""

    kind = "Pruned"

    of: Start
    """The network that is scored: a training's end, or a start."""
    prune: Pruning
    seed: int
    """Draws among equal scores."""

    @property
    def structure(self) -> str:
        return self.prune.structure

    def make(self, context: Context, job: Job) -> Mask:
        if isinstance(self.of, Job):
            state, mask = context.final(self.of)
        else:
            state, mask = self.of.make(context, job), ones(context.model(job))
        initial = self.of.root.make(context, job)
        network = context.candidate(state, mask, initial, job, self.prune)
        return prune(network, self.prune, generator(self.seed, "mask", "ties"))


@dataclass(frozen=True, kw_only=True, eq=False)
class FinalMask(MaskRecipe):
    """The mask that a training ended with."""

    kind = "Found"

    by: Job

    @property
    def structure(self) -> str:
        return self.by.finds.structure if self.by.finds else "weights"

    def make(self, context: Context, job: Job) -> Mask:
        return context.final(self.by)[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(Start):
    """One training run: from a start, under a mask, from step ``first`` to step ``last``.

    The learning rate and the position in the data order are those of steps first..last of the
    whole schedule in ``train``. As a start, it stands for its final state.
    """

    kind = "Job"

    data: DataSpec
    model: ModelSpec
    train: TrainSpec
    """All durations in steps."""
    seed: int
    """The replicate: draws data order and augmentation."""
    level: int
    """Prunings behind the mask; enters the data order."""
    order: int = 0
    """0, or another data order for the same run."""
    start: Start
    """The origin of weights and buffers."""
    mask: MaskRecipe
    """The mask, as the run begins."""
    finds: PruneDuring | PruneNever | None = None
    """How training changes or learns the mask; None: the mask stays."""
    first: int
    last: int
    keep: tuple[int, ...] = field(default=(), metadata=WHERE)
    """Steps whose state is kept as rewind points; they do not change the result."""
    dense: Job | None = field(default=None, metadata=WHERE)
    """The dense run of the search; None: this is it."""

    def make(self, context: Context, job: Job) -> State:
        return context.final(self)[0]

    @property
    def root(self) -> Start:
        return self.start.root

    @property
    def run(self) -> str:
        """Which of the replicate's runs this is: each draws its own data order."""
        level = 0 if self.train.replay_order else self.level
        return f"{level}.{self.order}" if self.order else str(level)

    def at(self, step: int) -> Start:
        """The state of this run after ``step`` steps: its start, or the run stopped there."""
        if step == self.first:
            return self.start
        return dataclasses.replace(self, last=step, keep=())


@dataclass(frozen=True, kw_only=True, eq=False)
class Measure(Recipe):
    """Numbers of finished trainings, stored under the recipe's digest."""

    columns: ClassVar[tuple[str, ...]]
    """Names of the numbers: columns of a record. A stored measure that lacks one is taken again."""

    def take(self, context: Context) -> dict[str, float | None]:
        """The numbers, by column; None where there is nothing to measure."""
        raise NotImplementedError
