"""Earliest matching rewind point of each cell, by bisection with trials on a backend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, starmap
from typing import Any

from rich.console import Console

from lth_core.analysis.bisection import (
    Finding,
    Response,
    candidates_between,
    earliest_matching,
    most_evaluations,
)
from lth_core.analysis.cells import value_text
from lth_core.analysis.groups import group_by
from lth_core.analysis.verdict import judge
from lth_core.analysis.verdict_rule import FEWEST
from lth_core.errors import SpecError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.results import record
from lth_core.spec.fields import steps_in
from lth_core.train import Trainer
from sweeps.phases import phase
from sweeps.plan.counting import counts_left
from sweeps.plan.estimate import estimate_work
from sweeps.plan.packs import packs_of
from sweeps.plan.plan import Plan, Trial
from sweeps.run.backend import Backend, check_backend, open_backend
from sweeps.run.earliest_rewind import Bounds, EarliestRewind
from sweeps.run.launch import (
    SweepOutcome,
    check_data,
    make_context,
    open_queue,
    restore_records,
    run_queue,
    running,
    sweep_trainer,
)
from sweeps.run.progress import SweepProgress
from sweeps.run.queue import WorkItem
from sweeps.run.worker import item_config, item_names
from sweeps.store.records import TRIALS, record_key, register
from sweeps.studies.axes import Fields, base_values, spec_of
from sweeps.studies.schema import Stop, Study


@dataclass(kw_only=True)
class BisectedCell:
    """A cell of the study over all of its rewind points, and the responses in the store.

    fields: the cell's axis values, without rewind and seed.
    points: steps before the last one that are on the evaluation grid or in the study.
    grid: points to probe where the responses are not monotone: the study's own, if it has several.
    """

    fields: Fields
    seeds: list[int]
    points: list[int]
    grid: list[int]
    steps: int
    levels: int
    responses: dict[int, dict[int, Response]] = field(default_factory=lambda: defaultdict(dict))
    """Responses by level, then by point."""
    densities: dict[int, float] = field(default_factory=dict)
    """Densities by level."""
    not_monotone: set[int] = field(default_factory=set)
    """Levels whose responses are not monotone, where the whole grid is probed."""

    def findings(self) -> dict[int, Finding]:
        """Findings by level; empty before the first response."""
        return {
            level: earliest_matching(responses, self.points, self.grid)
            for level, responses in sorted(self.responses.items())
        }

    def next_points(self) -> list[int]:
        """Points to probe next, for any level."""
        if not self.responses:
            return list(earliest_matching({}, self.points, self.grid).next_points)
        findings = self.findings()
        self.not_monotone |= {level for level, f in findings.items() if not f.monotone}
        return sorted({point for f in findings.values() for point in f.next_points})

    def next_looks(self) -> tuple[list[int], list[int]]:
        """Points that are looked at next at most: while the responses are monotone, and where they
        turn out not to be. The most costly points come first: those with the longest trainings."""
        levels, intervals = set[int](), set[tuple[tuple[int, ...], bool]]()
        for level, finding in self.findings().items():
            if finding.next_points and level not in self.not_monotone:
                between = candidates_between(self.points, finding.below, finding.earliest)
                levels.add(level)
                intervals.add((tuple(between), finding.earliest is not None))
        if not self.responses:
            levels, intervals = set(range(self.levels)), {(tuple(self.points), False)}
        seen = set().union(*self.responses.values()) if self.responses else set()
        open_points = sorted({p for points, _ in intervals for p in points} - seen)
        rounds = max((most_evaluations(len(p), known) for p, known in intervals), default=0)
        # In a round every level looks at one point of its interval; each round halves intervals.
        looks = sum(min(len(levels), len(intervals) * 2**number) for number in range(rounds))
        chosen = open_points[:looks]
        grid = sorted({*chosen, *self.grid} - seen)
        return (grid, grid) if self.not_monotone else (chosen, grid)

    def bracket(self) -> list[int]:
        """Points that bisection may still probe, while the responses are monotone."""
        findings = self.findings().values()
        low = min((-1 if f.below is None else f.below for f in findings), default=-1)
        high = max(
            (self.steps if f.earliest is None else f.earliest for f in findings), default=self.steps
        )
        return [point for point in self.points if low < point <= high]


class Bisection:
    """Concurrent bisections of all cells of a study, over the trainings in the store."""

    def __init__(self, plan: Plan, trainer: Trainer) -> None:
        study, self.trainer, self.cells = plan.study, trainer, list(_cells(plan))
        self._base, self._rule = base_values(study), study.verdict.rule()
        self._study, self._resources = study.name, study.resources
        self._running: dict[int, int] = {}
        """Numbers of unfinished trials of the latest probes, by cell."""
        for cell in self.cells:
            for point in cell.points:
                self._load_point(cell, point)

    def next_trials(self, number: int) -> list[Trial]:
        """Trials of a cell's next probes; none where its search is finished."""
        cell = self.cells[number]
        while points := cell.next_points():
            missing = [point for point in points if not self._load_point(cell, point)]
            trials = [trial for point in missing for trial in self._trials(cell, point)]
            if trials:
                self._running[number] = len(trials)
                return trials
        return []

    def trial_finished(self, number: int, ended: int = 1) -> list[Trial]:
        """Record that trials of a cell have ended; returns the trials that follow.

        None follow a failure, or while other trials of the probes are running.

        Args:
            ended: number of trials that have ended together.

        Raises:
            StoreError: the store cannot be read; then nothing is recorded.
        """
        left, cell, trials = self._running[number] - ended, self.cells[number], list[Trial]()
        if not left and all(self._load_point(cell, point) for point in cell.next_points()):
            trials = self.next_trials(number)
        self._running[number] = len(trials) or left
        return trials

    def bounds(self, at_once: int | None = None) -> tuple[Bounds, Bounds]:
        """Largest amounts of work: if responses are monotone, and if they turn out not to be.

        Args:
            at_once: number of concurrent trials; None: as many as this machine runs.
        """
        looks = [cell.next_looks() for cell in self.cells]
        monotone, whole = (
            self._bounds([each[number] for each in looks], at_once) for number in range(2)
        )
        return monotone, whole

    def _bounds(self, points: Sequence[Sequence[int]], at_once: int | None) -> Bounds:
        trials = [
            trial
            for cell, looks in zip(self.cells, points, strict=True)
            for point in looks
            for trial in self._trials(cell, point)
        ]
        store = self.trainer.store
        specs = [trial.spec for trial in trials]
        counts = counts_left(specs, set(store.digests("trainings")))
        return Bounds(
            cells=len(self.cells), points=sum(len(cell.points) for cell in self.cells),
            looks=sum(map(len, points)), trials=len(trials),
            levels=sum(trial.spec.levels + 1 for trial in trials),
            trainings=counts.unique_trainings,
            time=estimate_work(
                counts, self._resources, store, at_once, specs, in_turn=max(1, *map(len, points))
            ),
        )  # fmt: skip

    def earliest(self) -> Iterator[EarliestRewind]:
        """The earliest points, of the cells and levels that have responses."""
        for cell in self.cells:
            for level, finding in cell.findings().items():
                responses, seeds = cell.responses[level], len(cell.seeds)
                p_matching, p_matching_below = (
                    None if point is None else responses[point].p_matching
                    for point in (finding.earliest, finding.below)
                )
                yield EarliestRewind(
                    cell=cell.fields, level=level, density=cell.densities[level],
                    earliest=finding.earliest, below=finding.below,
                    finished=not finding.next_points,
                    monotone=finding.monotone and level not in cell.not_monotone,
                    p_matching=p_matching, p_matching_below=p_matching_below, steps=cell.steps,
                    probes=len(responses), points=len(cell.points),
                    trainings=seeds * len(responses), trainings_grid=seeds * len(cell.points),
                )  # fmt: skip

    def recorded_trials(self) -> list[Trial]:
        """Trials of the points with responses of which the store has an entry, readable or not."""
        found = [
            trial
            for cell in self.cells
            for point in {point for known in cell.responses.values() for point in known}
            for trial in self._trials(cell, point)
        ]
        keys = set(self.trainer.store.digests(TRIALS))
        return [trial for trial in found if record_key(self._study, trial) in keys]

    def _load_point(self, cell: BisectedCell, point: int) -> bool:
        """Load the responses at a point; False if the store lacks a seed's trainings."""
        if cell.responses and all(point in known for known in cell.responses.values()):
            return True
        replicates = [self._read(trial) for trial in self._trials(cell, point)]
        complete = [rows for rows in replicates if rows]
        if len(complete) < len(replicates):
            return False
        (found,) = judge([[row for rows in complete for row in rows]], [], self._rule)
        for verdict in found:
            tickets = tuple(rows[verdict.level]["final_test_accuracy"] for rows in complete)
            p = verdict.p_matching.adjusted if verdict.p_matching else 1.0
            cell.responses[verdict.level][point] = Response(tickets, p, self._rule)
            cell.densities[verdict.level] = verdict.density
        return True

    def _read(self, trial: Trial) -> list[dict[str, Any]] | None:
        """Records of the dense run and of each level's ticket; None if the store lacks one."""
        jobs = [next(iter(branches.values())) for branches in levels(trial.spec)]
        # Accuracies do not need the stored rewind points.
        jobs = [replace(job, keep=()) for job in jobs]
        if not all(self.trainer.known(job) for job in jobs):
            return None
        return [
            record(trial.spec, level, "ticket" if level else "dense", result)
            for level, result in enumerate(self.trainer(jobs))
        ]

    def _trials(self, cell: BisectedCell, point: int) -> list[Trial]:
        fields = {
            **cell.fields,
            "rewind": f"{point}it",
            "branches": ["ticket"],
            "predictors": False,
        }
        replicates = [{**fields, "seed": seed} for seed in cell.seeds]
        return [Trial(each, spec_of(self._base, each)) for each in replicates]


def find_rewinds(
    plan: Plan, console: Console, address: str | None, stack: ExitStack, serial: bool = False,
    verbose: bool = False,
) -> tuple[list[EarliestRewind], SweepOutcome]:  # fmt: skip
    """The earliest matching rewind points of a study's cells.

    Args:
        address, stack, serial, verbose: as in `launch`.

    Raises:
        SpecError: the study cannot be bisected: its search is not grid, it has too few seeds, ...
        InterruptedSweepError: on Ctrl-C or SIGTERM.
    """
    study, outcome = plan.study, SweepOutcome()
    _check(plan)
    check_backend(address, serial)
    if address is None:
        with phase(console, "loading data", not serial):
            check_data(plan)
    trainer = sweep_trainer(study)
    context = replace(make_context(study), stop=Stop(), probes=True)
    register(trainer.store, study)
    search = Bisection(plan, trainer)
    first = {number: search.next_trials(number) for number in range(len(search.cells))}
    if any(first.values()):
        bounds, whole = search.bounds(1 if serial else None)
        console.print(bounds.sentence())
        if whole != bounds:
            console.print(f"{whole.sentence()}, where accuracy falls before it matches")
        with nullcontext() if serial else phase(console, "starting Ray"):
            backend = open_backend(study, context, address, serial, stack)
        with running(context, outcome):
            _probe(study, search, first, backend, outcome, console, bounds, verbose)
    restore_records(search.recorded_trials(), context, trainer, outcome)
    return list(search.earliest()), outcome


def _probe(
    study: Study, search: Bisection, first: Mapping[int, Sequence[Trial]], backend: Backend,
    outcome: SweepOutcome, console: Console, bounds: Bounds, verbose: bool,
) -> None:  # fmt: skip
    """Run trials, and those that follow from their results, until all cells are finished."""
    values = dict[str, Fields]()
    """Values of the axes by a trial's name, also of cells whose dense run fails."""

    def items(number: int, trials: Sequence[Trial]) -> Iterator[WorkItem]:
        packs = packs_of(trials, study.resources, search.trainer, backend.concurrency)
        for pack in packs if trials else ():
            jobs, work = list[Job](), list[tuple[Trial, Sequence[int]]]()
            for trial in pack:
                own = {"rewind", "seed", *search.cells[number].fields}
                values[trial.id] = {n: v for n, v in trial.fields.items() if n in own}
                dense, *rest = trial.jobs()
                kept = tuple(sorted({*dense.keep, *search.cells[number].bracket()}))
                jobs += [replace(dense, keep=kept), *rest]
                work.append((trial, kept))
            yield WorkItem({"cell": number, **item_config(work)}, jobs)

    after: dict[tuple[str, ...], list[Trial]] = {}
    """Trials that follow an item of which the queue must ask again, as the store failed."""

    def following(ended: WorkItem) -> list[WorkItem]:
        number, names = ended.config["cell"], tuple(item_names(ended.config))
        if names not in after:
            after[names] = search.trial_finished(number, len(names))
        found = list(items(number, after[names]))
        del after[names]
        return found

    queue = open_queue(chain(*starmap(items, first.items())), search.trainer, following)
    progress = SweepProgress(
        study, search.trainer.store, console, bounds.trials, 0, bounds.levels,
        live=backend.live, run="rewind", verbose=verbose,
    )  # fmt: skip
    with progress:
        run_queue(backend, queue, progress)
    outcome.seconds = progress.seconds
    for name, reason in progress.failed.items():
        text = ", ".join(f"{axis}={value_text(v)}" for axis, v in values.get(name, {}).items())
        outcome.failures.append((f"{name} ({text})" if text else name, reason))


def _check(plan: Plan) -> None:
    """Check that a study can be bisected, before its data are loaded."""
    study = plan.study
    if study.search.algorithm != "grid":
        rule = "must be grid for rewind points to be bisected"
        raise SpecError("search.algorithm", rule, study.search.algorithm)
    if given := [trial.spec.ticket for trial in plan.trials if trial.spec.ticket]:
        raise SpecError("ticket", "has weights of its own, so it is not rewound", given[0])
    for _ in _cells(plan):
        pass


def _cells(plan: Plan) -> Iterator[BisectedCell]:
    """The study's trials grouped by all but seed and rewind point.

    Raises:
        SpecError: a cell has too few seeds for a verdict, or no rewind point.
    """

    def cell_fields(trial: Trial) -> dict[str, Any]:
        return {name: v for name, v in trial.fields.items() if name not in ("seed", "rewind")}

    for trials in group_by(plan.trials, cell_fields).values():
        spec = trials[0].spec
        seeds = list(dict.fromkeys(trial.spec.seed for trial in trials))
        if len(seeds) < FEWEST:
            raise SpecError("axes.seed", f"must have at least {FEWEST} values for a verdict", seeds)
        if spec.prune.when not in ("after", "before") or not spec.levels:
            rule = "must be after or before, with a level at least, for rewind points to differ"
            raise SpecError("prune.when", rule, spec.prune.when)
        steps, every = steps_in(spec.train.steps), steps_in(spec.train.evaluate_every)
        named = {steps_in(trial.spec.rewind) for trial in trials} - {steps}
        points = sorted({*range(0, steps, every), *named})
        yield BisectedCell(
            fields=cell_fields(trials[0]), seeds=seeds, points=points, steps=steps,
            levels=spec.levels, grid=sorted(named) if len(named) > 1 else points,
        )  # fmt: skip
