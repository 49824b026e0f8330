"""What a study will train, before anything runs: trials, shared trainings, cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lth_core.jobs import Job
from lth_core.lottery import levels
from lth_core.spec import TicketSpec
from lth_core.train import Trainer
from sweeps.axes import Fields, axis_fields, base_values, cells, check_space, samples, spec_of
from sweeps.config import Study


@dataclass(frozen=True)
class Trial:
    """One cell and seed: the fields that set it apart, and its resolved spec."""

    fields: Fields
    spec: TicketSpec

    @cached_property
    def digest(self) -> str:
        """The spec's."""
        return self.spec.digest()

    @property
    def id(self) -> str:
        """Short name: the start of the digest."""
        return self.digest[:12]

    def jobs(self) -> Iterator[Job]:
        """Everything it trains, the dense run first."""
        for branches in levels(self.spec):
            yield from branches.values()


@dataclass(frozen=True)
class Plan:
    """A study's trials, in the order of its axes, each once."""

    study: Study
    trials: tuple[Trial, ...]

    @property
    def axes(self) -> list[str]:
        """Dotted fields that differ between trials."""
        return axis_fields(self.study)

    @cached_property
    def needed(self) -> Counter[str]:
        """How many trials need each training, by digest."""
        return Counter(job.digest for trial in self.trials for job in trial.jobs())

    def sharing(self) -> dict[str, tuple[int, int]]:
        """Of each branch, and of the tickets' masks: how many are made, and for how many users."""
        made: dict[str, set[str]] = defaultdict(set)
        users: Counter[str] = Counter()
        for trial in self.trials:
            for branches in levels(trial.spec):
                found = {branch: job.digest for branch, job in branches.items()}
                if "ticket" in branches:
                    found["mask"] = branches["ticket"].mask.digest
                for name, digest in found.items():
                    made[name].add(digest)
                    users[name] += 1
        return {name: (len(made[name]), users[name]) for name in made}

    def cost(self) -> dict[str, int]:
        """Trials; trainings and steps, as the sum over trials and with each trained once."""
        steps: dict[str, int] = {}
        naive = 0
        for trial in self.trials:
            for job in trial.jobs():
                steps[job.digest] = job.last - job.first
                naive += job.last - job.first
        return {
            "trials": len(self.trials),
            "trainings_naive": sum(self.needed.values()),
            "trainings_unique": len(self.needed),
            "steps_naive": naive,
            "steps_unique": sum(steps.values()),
        }

    def shared(self) -> dict[str, Job]:
        """Trainings that several trials need, by digest, with the rewind points of all of them."""
        found: dict[str, Job] = {}
        for trial in self.trials:
            for job in trial.jobs():
                if self.needed[job.digest] > 1:
                    keep = {*job.keep, *(found[job.digest].keep if job.digest in found else ())}
                    found[job.digest] = replace(job, keep=tuple(sorted(keep)))
        return found


def make_plan(study: Study) -> Plan:
    """The trials of a grid or random study; of an optuna study, the cells of one sample.

    Raises:
        SpecError: a cell's spec is wrong; names the axis.
    """
    if study.search.algorithm == "random":
        points = [{**sample, **cell} for sample in samples(study) for cell in cells(study)]
    else:
        if study.search.algorithm == "optuna":
            check_space(study)
        points = cells(study)
    base = base_values(study)
    found: dict[str, Trial] = {}
    for fields in points:
        trial = Trial(fields, spec_of(base, fields))
        found.setdefault(trial.digest, trial)
    return Plan(study, tuple(found.values()))


def is_stored(trial: Trial, trainer: Trainer) -> bool:
    """Whether the store has everything that a trial trains."""
    return all(trainer.known(job) for job in trial.jobs())


def summary(plan: Plan) -> dict[str, Any]:
    """The cost of all of a search: of an optuna study, an upper bound over its samples."""
    cost = plan.cost()
    if plan.study.search.algorithm != "optuna":
        return cost
    return {name: number * plan.study.search.trials for name, number in cost.items()}
