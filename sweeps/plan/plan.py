"""Plan of a study: its trials, the trainings that they share, and their cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import torch

from lth_core.analysis.groups import distinct, key_of
from lth_core.analysis.verdict_rule import FEWEST
from lth_core.columns import COLUMNS
from lth_core.data import has_validation
from lth_core.errors import SpecError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.resolve import Pins, check_latency, forget_pins
from lth_core.spec import TicketSpec, canonical_json, describe
from lth_core.train import Trainer
from sweeps.plan.counting import Counts, count, sharing_key, signature
from sweeps.plan.tickets import study_tickets
from sweeps.studies.axes import (
    Fields,
    SpecReader,
    axis_fields,
    base_values,
    check_axes,
    combinations,
    extremes,
    samples,
)
from sweeps.studies.schema import Study

MOST_SHOWN = 20
"""Number of known values that an error lists."""


@dataclass(frozen=True)
class Trial:
    """A combination of values of the study's axes, and its resolved spec."""

    fields: Fields
    spec: TicketSpec

    @cached_property
    def digest(self) -> str:
        """sha256 of the spec."""
        return self.spec.digest()

    @property
    def id(self) -> str:
        """Short name: the start of the digest."""
        return self.digest[:12]

    def jobs(self) -> Iterator[Job]:
        """Jobs of the trial, the dense run first."""
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
    def counts(self) -> Counts:
        """Counts of the trials' trainings."""
        return count(trial.spec for trial in self.trials)

    def sharing(self) -> dict[str, tuple[int, int]]:
        """(distinct, used) numbers of trainings by branch, and of ticket masks.

        Masks for different data, networks or trainings count as different. A mask that training
        finds counts as its training.
        """
        return {name: (self.counts.distinct[name], used) for name, used in self.counts.used.items()}

    @property
    def certainty(self) -> Literal["exactly", "at most", "about"]:
        """Whether the counts are exact, an upper bound, or those of other samples than Optuna's."""
        if self.study.search.algorithm == "optuna":
            return "about"
        return "at most" if self.study.stop.below_matching_for else "exactly"

    def cost(self) -> dict[str, int]:
        """Numbers of trials, trainings and steps: summed over trials, and each counted once."""
        return {
            "trials": self.counts.trials,
            "trainings_naive": self.counts.trainings,
            "trainings_unique": self.counts.unique_trainings,
            "steps_naive": self.counts.steps,
            "steps_unique": self.counts.unique_steps,
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Row of each trial: id, axis values, levels, trainings and steps, shared ones included."""
        sizes = self.counts.sizes
        for trial in self.trials:
            trainings, steps = sizes[signature(trial.spec)]
            yield {"trial": trial.id, **trial.fields, "levels": trial.spec.levels,
                   "trainings": trainings, "steps": steps}  # fmt: skip

    def where(self, field: str, values: Sequence[Any]) -> Plan:
        """The trials whose field has one of the values.

        Args:
            field: dotted field of an axis, or its last part where no other axis has that.

        Raises:
            SpecError: the field is no axis, or no trial of the plan has a value.
        """
        axes = self.trials[0].fields
        same_end = [axis for axis in axes if axis.endswith(f".{field}")]
        if field not in axes and len(same_end) != 1:
            rule = "must name an axis of the study"
            raise SpecError("--where", rule, field, same_end or axes)
        field = field if field in axes else same_end[0]
        known = distinct(trial.fields[field] for trial in self.trials)
        for value in values:
            if value not in known.values():
                listed = [override_text(value) for value in islice(known.values(), MOST_SHOWN)]
                listed += ["..."] * (len(known) > MOST_SHOWN)
                raise SpecError("--where", f"must name values of {field}", value, listed)
        keys = {key for key, value in known.items() if value in values}
        chosen = (trial for trial in self.trials if key_of(trial.fields[field]) in keys)
        return Plan(self.study, tuple(chosen))

    def shared(self) -> dict[str, Job]:
        """Trainings that several trials need, by digest, with the rewind points of all of them."""
        sets: dict[Hashable, list[Trial]] = defaultdict(list)
        for trial in self.trials:
            sets[sharing_key(trial.spec)].append(trial)
        shared: dict[str, Job] = {}
        for members in sets.values():
            jobs: dict[str, Job] = {}
            for job in (job for trial in members for job in trial.jobs()):
                known = jobs.setdefault(job.digest, job)
                if known is not job:
                    keep = tuple(sorted({*known.keep, *job.keep}))
                    jobs[job.digest] = replace(known, keep=keep) if keep != known.keep else known
                    shared[job.digest] = jobs[job.digest]
        return shared


def make_plan(study: Study, pins: Pins | None = None, *, swept: bool = False) -> Plan:
    """The plan of all trials; for an optuna study an estimate, from samples drawn at random.

    Args:
        pins: pins that `resolve` takes.
        swept: the trials are to be read, not run, so any number of seeds will do.

    Raises:
        SpecError: a trial's spec is wrong, names the axis; the seeds are too few for a verdict; or
            a trial lacks what the search's objective needs, or a budget of milliseconds.
    """
    if pins is None and not swept:
        check_axes(study)
    algorithm, runs = study.search.algorithm, pins is None and not swept
    if algorithm == "grid" and study.search.space and not swept:
        rule = "must be random or optuna, which sample search.space"
        raise SpecError("search.algorithm", rule, algorithm)
    if algorithm == "optuna" and study.stop.below_matching_for and not swept:
        rule = "must be null with optuna, which compares samples at their last level"
        raise SpecError("stop.below_matching_for", rule, study.stop.below_matching_for)
    drawn = [{}] if algorithm == "grid" else list(samples(study))
    points = combinations(study)
    forget_pins()
    tickets = study_tickets(study) if pins is None else {}
    reader = SpecReader(base_values(study), pins, tickets)
    if study.search.space and runs:
        _check_samples(study, reader)
    trials: dict[str, Trial] = {}
    refused: SpecError | None = None
    for sample in drawn:
        try:
            found = sampled_trials(points, sample, reader)
            if runs:
                check_objective(study, (trial.spec for trial in found))
                _check_latencies(study, found)
        except SpecError as error:
            if algorithm != "optuna":  # whose search goes on without the sample
                raise
            refused = refused or error
            continue
        for trial in found:
            trials.setdefault(trial.digest, trial)
    if refused and not trials:
        raise refused
    if runs:
        _check_seeds(study, trials.values())
    return Plan(study, tuple(trials.values()))


def sampled_trials(points: Sequence[Fields], sample: Fields, reader: SpecReader) -> list[Trial]:
    """Trials of a sample of the space: one for each combination of the axes' values.

    Args:
        points: the combinations.

    Raises:
        SpecError: a value does not fit its field.
        DataError: data to be pinned are absent or damaged.
    """
    every = ({**sample, **values} for values in points)
    return [Trial(fields, reader.spec(fields)) for fields in every]


def _check_samples(study: Study, reader: SpecReader) -> None:
    """Check that samples of the search space make specs: Optuna draws them while the search runs.

    Raises:
        SpecError: a value does not; names its field of the space. Or another field is wrong.
    """
    point = next(iter(combinations(study)), {})
    space = {name: extremes(axis) for name, axis in study.search.space.items()}
    sample = {name: values[0] for name, values in space.items()} | point
    for name, values in space.items():
        for value in values:
            try:
                reader.spec({**sample, name: value})
            except SpecError as error:
                if name not in error.field:  # another field is wrong, whatever is sampled
                    raise
                raise SpecError(f"search.space.{name}", error.rule, value, error.known) from None


def _check_seeds(study: Study, trials: Iterable[Trial]) -> None:
    """Refuse a verdict that the seeds cannot give, where the study file asks for one."""
    seeds = sorted({trial.spec.seed for trial in trials})
    asked = "verdict" in study.model_fields_set and "seed" not in study.search.space
    if asked and len(seeds) < FEWEST:
        rule = f"must have at least {FEWEST} values for a verdict"
        raise SpecError("axes.seed", rule, seeds)


def _check_latencies(study: Study, trials: Iterable[Trial]) -> None:
    """Check budgets of milliseconds on this machine; latencies are measured for it.

    Those of a GPU are not checked where there is none: a cluster's head may lack one. A trial that
    cannot meet its budget then fails after its dense run.
    """
    for trial in trials:
        if "cuda_latency_ms" in trial.spec.prune.budget:
            if not study.resources.gpu:
                rule = "must be above 0 for prune.budget.cuda_latency_ms, measured on a GPU"
                raise SpecError("resources.gpu", rule, study.resources.gpu)
            if not torch.cuda.is_available():
                continue
        check_latency(trial.spec)


def check_objective(study: Study, specs: Iterable[TicketSpec]) -> None:
    """Check that an adaptive search's objective can be computed in every trial.

    Raises:
        SpecError: it needs validation examples, and a trial has none.
    """
    names = [name for name in study.search.objective if COLUMNS[name].needs_validation]
    if not names or study.search.algorithm != "optuna":
        return
    if not all(map(has_validation, {spec.data for spec in specs})):
        rule = "needs validation examples (data.validation above 0)"
        raise SpecError("search.objective", rule, names[0])


def is_stored(trial: Trial, trainer: Trainer) -> bool:
    """Whether the store has all trainings of a trial."""
    return all(trainer.known(job) for job in trial.jobs())


def override_text(value: Any) -> str:
    """A field's value as typed on the command line."""
    return value if isinstance(value, str) else canonical_json(describe(value))
