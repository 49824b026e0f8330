"""Counts of the trainings of a study's trials, and of those that several trials share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from operator import attrgetter

from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.spec import DataSpec, ModelSpec, TicketSpec, TrainSpec, spec_json
from lth_core.spec.fields import Checks
from lth_core.train.archive import ended_at
from lth_core.train.timings import SpeedFactors

Signature = tuple[Hashable, ...]
"""Values of a spec's fields without data, network, learning rate and seed. Trials of one signature
have equal numbers of trainings and steps."""

_NUMBERS = (
    "trials", "trainings", "steps", "unique_trainings", "unique_steps", "unfinished", "levels",
)  # fmt: skip
_NAMES = [f.name for f in fields(TicketSpec) if f.name not in ("data", "model", "train", "seed")]
_VALUES = attrgetter(*_NAMES)


@dataclass
class Counts:
    """Numbers of trainings and steps of a set of trials."""

    trials: int = 0
    trainings: int = 0
    """Trainings of all trials; one that several trials share counts for each."""
    steps: int = 0
    unique_trainings: int = 0
    """Trainings of all trials; each counts once."""
    unique_steps: int = 0
    unfinished: int = 0
    """Trials with a training that counts once and is theirs."""
    levels: int = 0
    """Levels with a training that counts once and is theirs."""
    distinct: Counter[str] = field(default_factory=Counter)
    """Numbers of distinct trainings by branch, and of distinct ticket masks as `mask`."""
    used: Counter[str] = field(default_factory=Counter)
    """As `distinct`, but each counts once for every level of a trial that uses it."""
    work: Counter[SpeedFactors] = field(default_factory=Counter)
    """Numbers of unique steps, by everything that decides the time of a step."""
    points: Counter[SpeedFactors] = field(default_factory=Counter)
    """Numbers of points between two twins at which a network is evaluated, likewise."""
    sizes: dict[Signature, tuple[int, int]] = field(default_factory=dict)
    """Numbers of trainings and steps of one trial, by its signature."""

    def add(self, other: Counts, alike: Counter[tuple[DataSpec, ModelSpec]]) -> None:
        """Add the counts of sets of trials, all equal to ``other`` except for data and network.

        Args:
            alike: number of sets by data and network.
        """
        times = alike.total()
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for name in other.used:
            self.distinct[name] += times * other.distinct[name]
            self.used[name] += times * other.used[name]
        for own, counted in ((self.work, other.work), (self.points, other.points)):
            for factors, number in counted.items():
                for (data, model), sets in alike.items():
                    own[factors._replace(data=data, model=model)] += sets * number
        self.sizes |= other.sizes


def signature(spec: TicketSpec) -> Signature:
    """The signature of a spec's trial."""
    rest = (spec_json(v) if isinstance(v, Checks) else v for v in _VALUES(spec))
    return _without_rate(spec.train), *rest


@lru_cache(maxsize=1024)
def _without_rate(train: TrainSpec) -> str:
    return spec_json(replace(train, lr=1.0))


def sharing_key(spec: TicketSpec) -> Hashable:
    """A key that is equal for trials that may share trainings.

    Every job contains its data, network, training and seed, or its parent does.
    """
    return spec_json(spec.data), spec_json(spec.model), spec_json(spec.train), spec.seed


def count(specs: Iterable[TicketSpec]) -> Counts:
    """Counts over trials.

    Trials of one seed, learning rate, dataset and network (see `sharing_key`) form a set. How the
    trials of a set share trainings does not depend on these four values, because recipes contain
    them unchanged. So one set is walked for all sets that differ only in these values.

    Args:
        specs: the resolved specs, each once.
    """
    sets: dict[Hashable, list[TicketSpec]] = defaultdict(list)
    for spec in specs:
        sets[sharing_key(spec)].append(spec)
    alike: dict[tuple[Signature, ...], Counter[tuple[DataSpec, ModelSpec]]] = defaultdict(Counter)
    examples: dict[tuple[Signature, ...], list[TicketSpec]] = {}
    for members in sets.values():
        signatures = tuple(map(signature, members))
        examples.setdefault(signatures, members)
        alike[signatures][members[0].data, members[0].model] += 1
    counts = Counts()
    for signatures, members in examples.items():
        counts.add(counts_left(members), alike[signatures])
    return counts


def counts_left(
    specs: Iterable[TicketSpec],
    stored: Collection[str] = (),
    points: Collection[str] | None = None,
) -> Counts:
    """Counts over every job of every trial; stored trainings are not among the unique ones.

    Args:
        stored: digests of stored trainings.
        points: digests of stored rewind points. A stored training that lacks some is trained again
            up to the last of them, so its steps up to there count. None: no training lacks any.
    """
    counts, seen = Counts(), set[str]()
    replayed = Counter[str]()
    """Number of steps of a stored training that are trained again."""
    digests: dict[str, set[str]] = defaultdict(set)
    for spec in specs:
        before = counts.trainings, counts.steps, counts.unique_trainings
        for branches in levels(spec):
            unique_trainings = counts.unique_trainings
            for branch, job in branches.items():
                steps = job.last - job.first
                digests[branch].add(job.digest)
                counts.used[branch] += 1
                counts.steps += steps
                factors = SpeedFactors(job.data, job.model, job.train, job.finds)
                if job.digest in stored:
                    lacking = 0 if points is None else _missing_steps(job, points)
                    more = max(0, lacking - replayed[job.digest])
                    counts.unique_trainings += more > replayed[job.digest] == 0
                    counts.unique_steps += more
                    counts.work[factors] += more
                    replayed[job.digest] += more
                elif job.digest not in seen:
                    seen.add(job.digest)
                    counts.unique_trainings += 1
                    counts.unique_steps += steps
                    counts.work[factors] += steps
                    if branch == "twin":
                        counts.points[factors] += spec.stability.points
            counts.levels += counts.unique_trainings > unique_trainings
            if ticket := branches.get("ticket"):
                digests["mask"].add(ticket.digest if ticket.finds else ticket.mask.digest)
                counts.used["mask"] += 1
            counts.trainings += len(branches)
        counts.trials += 1
        counts.unfinished += counts.unique_trainings > before[2]
        counts.sizes[signature(spec)] = (counts.trainings - before[0], counts.steps - before[1])
    counts.distinct.update({name: len(known) for name, known in digests.items()})
    return counts


def _missing_steps(job: Job, points: Collection[str]) -> int:
    """Number of steps up to the last rewind point of a job that is not stored; 0: all are."""
    missing = [step for step in job.keep if ended_at(job, step).digest not in points]
    return max(missing, default=job.first) - job.first
