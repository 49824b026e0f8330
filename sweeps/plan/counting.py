"""Counts of the trainings of a study's trials, and of those that several trials share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from operator import attrgetter

from lth_core.lottery import levels
from lth_core.spec import DataSpec, ModelSpec, TicketSpec, TrainSpec, spec_json
from lth_core.spec.fields import Checks
from lth_core.train.timings import SpeedFactors

Kind = tuple[Hashable, ...]
"""Fields of a spec but its data, network, learning rate and seed."""

_NAMES = [f.name for f in fields(TicketSpec) if f.name not in ("data", "model", "train", "seed")]
_VALUES = attrgetter(*_NAMES)


@dataclass
class Counts:
    """Numbers of trainings and steps of a set of trials."""

    trials: int = 0
    trainings: int = 0
    """Summed over the trials."""
    steps: int = 0
    unique_trainings: int = 0
    """Each counted once."""
    unique_steps: int = 0
    made: Counter[str] = field(default_factory=Counter)
    """Numbers of distinct trainings of each branch, and of ticket masks; `used`: of their users."""
    used: Counter[str] = field(default_factory=Counter)
    work: Counter[SpeedFactors] = field(default_factory=Counter)
    """Numbers of unique steps, by everything that decides the time of a step."""
    sizes: dict[Kind, tuple[int, int]] = field(default_factory=dict)
    """Numbers of trainings and steps of one trial, by its kind."""

    def add(self, other: Counts, alike: Counter[tuple[DataSpec, ModelSpec]]) -> None:
        """Add the counts of sets of trials that differ from ``other`` in data and network alone.

        Args:
            alike: number of such sets by data and network.
        """
        times = alike.total()
        for name in ("trials", "trainings", "steps", "unique_trainings", "unique_steps"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for name in other.used:
            self.made[name] += times * other.made[name]
            self.used[name] += times * other.used[name]
        for pace, steps in other.work.items():
            for (data, model), many in alike.items():
                self.work[pace._replace(data=data, model=model)] += many * steps
        self.sizes |= other.sizes


def kind_of(spec: TicketSpec) -> Kind:
    """The fields of a spec but its data, network, learning rate and seed."""
    rest = (spec_json(v) if isinstance(v, Checks) else v for v in _VALUES(spec))
    return _but_rate(spec.train), *rest


@lru_cache(maxsize=1024)
def _but_rate(train: TrainSpec) -> str:
    return spec_json(replace(train, lr=1.0))


def apart(spec: TicketSpec) -> Hashable:
    """Key of the trials that may share trainings: every job names its data, network, training and
    seed, or a parent that does."""
    return spec_json(spec.data), spec_json(spec.model), spec_json(spec.train), spec.seed


def count(specs: Iterable[TicketSpec]) -> Counts:
    """Counts over trials.

    Trials of one seed, rate, dataset and network (see `apart`) form a set. How the trials of a set
    share trainings does not depend on these four values, because recipes contain them unchanged. So
    of the sets that differ in these values alone, one is walked.

    Args:
        specs: the resolved specs, each once.
    """
    sets: dict[Hashable, list[TicketSpec]] = defaultdict(list)
    for spec in specs:
        sets[apart(spec)].append(spec)
    alike: dict[tuple[Kind, ...], Counter[tuple[DataSpec, ModelSpec]]] = defaultdict(Counter)
    first: dict[tuple[Kind, ...], list[TicketSpec]] = {}
    for together in sets.values():
        kind = tuple(map(kind_of, together))
        first.setdefault(kind, together)
        alike[kind][together[0].data, together[0].model] += 1
    counts = Counts()
    for kind, together in first.items():
        counts.add(_walked(together), alike[kind])
    return counts


def work_left(specs: Iterable[TicketSpec], stored: Collection[str]) -> Counter[SpeedFactors]:
    """Numbers of unique steps of trainings that are not stored; walks every job of every trial."""
    return _walked(specs, stored).work


def _walked(specs: Iterable[TicketSpec], stored: Collection[str] = ()) -> Counts:
    counts, seen = Counts(), set(stored)
    made: dict[str, set[str]] = defaultdict(set)
    for spec in specs:
        before = counts.trainings, counts.steps
        for branches in levels(spec):
            for branch, job in branches.items():
                steps = job.last - job.first
                made[branch].add(job.digest)
                counts.used[branch] += 1
                counts.steps += steps
                if job.digest not in seen:
                    seen.add(job.digest)
                    counts.unique_trainings += 1
                    counts.unique_steps += steps
                    counts.work[SpeedFactors(job.data, job.model, job.train, job.finds)] += steps
            if ticket := branches.get("ticket"):
                made["mask"].add(ticket.digest if ticket.finds else ticket.mask.digest)
                counts.used["mask"] += 1
            counts.trainings += len(branches)
        counts.trials += 1
        counts.sizes[kind_of(spec)] = (counts.trainings - before[0], counts.steps - before[1])
    counts.made.update({name: len(digests) for name, digests in made.items()})
    return counts
