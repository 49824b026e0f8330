"""Sync of a study with MLflow: publish the levels in the store that MLflow lacks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from lth_core import find_tickets
from lth_core.analysis.cells import Cell, cells
from lth_core.analysis.families import named_by_form
from lth_core.analysis.groups import group_by, key_of, values_of
from lth_core.analysis.overlaps import with_overlaps
from lth_core.analysis.verdict import Verdict, verdicts
from lth_core.columns import Record
from lth_core.errors import SpecError, StoreError, TrackingError
from lth_core.resolve import check_unchanged
from lth_core.results import LevelResult
from lth_core.spec import sha256
from lth_core.store import existing_store
from lth_core.train import Trainer
from sweeps.plan.plan import Plan, Trial
from sweeps.plan.stopping import has_stopped
from sweeps.report.description import study_description
from sweeps.report.study_html import write_html
from sweeps.report.study_results import StudyResults, study_results, study_trials
from sweeps.report.winners import winning_tickets
from sweeps.store.published import PROBES, cell_run, study_publisher, trial_run
from sweeps.store.records import load_mask, load_records, load_start
from sweeps.store.status import is_running
from sweeps.studies.find import study_text
from sweeps.studies.schema import Study
from tracking.publish import names
from tracking.publish.client import RefusedError
from tracking.publish.payload import level_digest, level_files
from tracking.publish.publisher import RETRIES, Publisher
from tracking.publish.runs import PublishedRun
from tracking.publish.study_run import StudyContent
from tracking.publish.tickets.registry import register_winners

MOST_SHOWN = 10
"""Largest number of unpublished trials that are listed one by one."""


@dataclass(frozen=True)
class Published:
    """Outcome of publishing a study."""

    trials: int
    """Number of trials in MLflow."""
    failures: dict[str, str]
    """Reason for each trial that could not be published, by the trial's id."""
    status: str
    """Status of the study's run: `FINISHED`, `RUNNING`, `FAILED` or `KILLED`."""
    ended: int
    """End of the latest training of the trials in ms since 1970; 0: not known."""

    def failure_lines(self) -> list[str]:
        """A line for each trial that could not be published, up to a number of trials."""
        lines = [f"trial {trial} could not be published: {r}" for trial, r in self.failures.items()]
        left = len(lines) - MOST_SHOWN
        return [*lines[:MOST_SHOWN], *([f"{left} more trials could not"] if left > 0 else [])]


def sync(plan: Plan) -> Published:
    """Publish the levels of a study that MLflow lacks, and the study's own run.

    Raises:
        SpecError: the store has no records of the study.
        TrackingError: as `publish_results`.
    """
    publisher = open_study_publisher(plan)
    results = study_results(plan)
    # Not in the study's folder: a report may be written there at the same time.
    with TemporaryDirectory(prefix="lth-") as folder:
        file = Path(folder) / "report.html"
        report = partial(write_html, plan, results, file)
        return publish_results(plan, publisher, results, report)


def publish_results(
    plan: Plan,
    publisher: Publisher,
    results: StudyResults,
    report: Callable[[], Path],
    seconds: float = float("inf"),
    retries: int = RETRIES,
) -> Published:
    """Publish the levels of a study that MLflow lacks, and the study's own run.

    After a refused call, all is published again on MLflow's new state: another publisher may have
    made the same run, and deleted this one.

    Args:
        report: writes the report and returns its file.
        seconds: time after which no further level is published.

    Raises:
        TrackingError: as `publish_missing`, or the server refuses the study's run.
    """
    try:
        published = publish_missing(plan, publisher, results.records, seconds)
        _publish_study(plan, publisher, results, published, report)
    except RefusedError:
        if not retries:
            raise
        publisher = open_study_publisher(plan)
        return publish_results(plan, publisher, results, report, seconds, retries - 1)
    return published


def _publish_study(
    plan: Plan,
    publisher: Publisher,
    results: StudyResults,
    published: Published,
    report: Callable[[], Path],
) -> None:
    """Publish the study's answer, its cells' accuracies, its counts, and the report.

    Args:
        published: the result of `publish_missing`.
    """
    study, found = plan.study, cells(results.records, results.axes)
    trials = study_trials(plan, existing_store(study.store))
    name_of = {trial.digest: cell_run(trial).name for trial in trials}
    short = {name_of[cell.records[0]["spec_digest"]]: cell for cell in found}
    description = partial(study_description, plan, results)
    rule = study.verdict.model_dump()
    register_winners(publisher, study.name, winning_tickets(study.name, results))
    publisher.publish_study(StudyContent(
        digest=sha256([results.digest, rule, study.stable_below, description("", "")]),
        description=description,
        cells=short if len(short) == len(found) else {cell.label: cell for cell in found},
        axes=results.axes,
        specs=list({trial.spec.data: trial.spec for trial in trials}.values()),
        verdicts=results.verdicts,
        trials={"planned": results.trials, "incomplete": len(results.missing)},
        report=report,
        study_file=study_text(study).encode(),
        status=published.status,
        ended=published.ended,
    ))  # fmt: skip


def publish_missing(
    plan: Plan,
    publisher: Publisher | None = None,
    compared: Sequence[Record] = (),
    seconds: float = float("inf"),
) -> Published:
    """Publish every finished level, overlap and verdict that MLflow lacks.

    A trial with lost store entries or changed code, or that MLflow refuses, is skipped; the others
    are published.
    Runs that are RUNNING, though no sweep is, become KILLED.

    Args:
        compared: the study's records with their overlaps, if known.
        seconds: time after which no further level is published.

    Raises:
        TrackingError: the server cannot be reached, refuses to list runs, or the time is over.
    """
    study = plan.study
    publisher, store = publisher or open_study_publisher(plan), existing_store(study.store)
    trainer, records = Trainer(store, frozen=True), list[Record]()
    runs, failures = publisher.runs(), dict[str, str]()
    check_time = _deadline(publisher.uri, seconds)
    trials = study_trials(plan, store)
    for trial in trials:
        rows = load_records(store, study.name, [trial])
        if not rows:
            continue
        records += rows
        try:
            _publish_trial(study, trial, rows, trainer, publisher, runs, check_time)
        except (SpecError, StoreError, RefusedError) as error:
            failures[trial.id] = str(error)
    axes, rows_of = plan.axes, defaultdict[str, list[Record]](list)
    records = named_by_form(records, axes)
    for row in compared or with_overlaps(records, axes, lambda digest: load_mask(store, digest)):
        rows_of[row["spec_digest"]].append(row)
    judged = verdicts(records, axes, study.verdict.rule())
    verdicts_of = _by_trial(records, axes, judged)
    published = verdicts_of.keys() & runs.keys()
    for key in published:
        check_time()
        try:
            publisher.publish_compared(runs[key], verdicts_of[key], rows_of[key])
        except RefusedError as error:
            failures.setdefault(rows_of[key][0]["trial"], str(error))
    is_sweeping = is_running(store, study.name)
    if not is_sweeping:
        runs = {key: publisher.interrupt(run) for key, run in runs.items()}
    cell_runs = _publish_cells(
        publisher, trials, cells(records, axes), verdicts_of, runs, is_sweeping
    )
    _put_below_cells(publisher, trials, runs, cell_runs)
    _mark_earlier(publisher, trials, runs, cell_runs)
    status, ended = _outcome([runs.get(trial.digest) for trial in trials], is_sweeping)
    return Published(len(published), failures, status, ended)


def _outcome(runs: Sequence[PublishedRun | None], is_sweeping: bool) -> tuple[str, int]:
    """Status of the run above others, and the end of the latest in ms since 1970 (0: not known).

    Args:
        runs: runs of all planned trials; None: not published.
        is_sweeping: whether a sweep is running.
    """
    ended = max((run.ended for run in runs if run), default=0)
    words = {run.status if run else "" for run in runs}
    if words == {"FINISHED"}:
        return "FINISHED", ended
    return "RUNNING" if is_sweeping else "FAILED" if "FAILED" in words else "KILLED", ended


def _publish_cells(
    publisher: Publisher, trials: Sequence[Trial], found: Sequence[Cell],
    verdicts_of: Mapping[str, list[Verdict]], runs: Mapping[str, PublishedRun], is_sweeping: bool,
) -> dict[str, PublishedRun]:  # fmt: skip
    """Publish the runs of cells; returns them by key, and those of probes and earlier cells.

    Args:
        runs: the trials' runs by key.
    """
    cell_runs, trial_of = publisher.cells(), {trial.digest: trial for trial in trials}
    replicates = group_by(trials, lambda trial: cell_run(trial).key)
    written = dict[str, PublishedRun]()
    for cell in found:
        first = cell.records[0]["spec_digest"]
        run = cell_run(trial_of[first])
        members = [runs.get(trial.digest) for trial in replicates[key_of(run.key)]]
        verdicts, outcome = verdicts_of[first], _outcome(members, is_sweeping)
        written[run.key] = publisher.publish_cell(
            run, cell, verdicts, cell_runs.get(run.key), *outcome
        )
    others = {key: run for key, run in cell_runs.items() if key not in written}
    if not is_sweeping:
        others = {key: publisher.interrupt(run) for key, run in others.items()}
    return written | others


def _put_below_cells(
    publisher: Publisher, trials: Sequence[Trial], runs: Mapping[str, PublishedRun],
    cell_runs: Mapping[str, PublishedRun],
) -> None:  # fmt: skip
    """Put trials below their cells and cells below the study.

    An older version put trials below the study; a user may have deleted the run above.
    """
    publisher.set_tag(cell_runs.values(), names.PARENT, publisher.study_run)
    cell_of = {trial.digest: cell_run(trial).key for trial in trials}
    parents = {publisher.study_run, *(run.id for run in cell_runs.values())}
    for key, run in runs.items():
        parent = run.tags.get(names.PARENT, "")
        if cell := cell_runs.get(cell_of.get(key, "")):
            publisher.set_tag([run], names.PARENT, cell.id)
        elif parent not in parents:
            publisher.set_tag([run], names.PARENT, publisher.study_run)


def _mark_earlier(
    publisher: Publisher, trials: Sequence[Trial], runs: Mapping[str, PublishedRun],
    cell_runs: Mapping[str, PublishedRun],
) -> None:  # fmt: skip
    """Mark the runs of trials and cells that the study no longer has; unmark those that it has."""
    probes = cell_runs[PROBES.key].id if PROBES.key in cell_runs else ""
    keys, cell_keys = {trial.digest for trial in trials}, {cell_run(t).key for t in trials}
    current = {run.id for key, run in runs.items() if key in keys}
    current |= {run.id for run in runs.values() if run.tags.get(names.PARENT) == probes}
    current |= {run.id for key, run in cell_runs.items() if key in cell_keys | {PROBES.key}}
    every = [*runs.values(), *cell_runs.values()]
    earlier = [run for run in every if run.id not in current]
    publisher.set_tag([run for run in every if run.id in current], names.SETTINGS, names.CURRENT)
    publisher.set_tag(earlier, names.SETTINGS, names.EARLIER)


def _publish_trial(
    study: Study, trial: Trial, rows: Sequence[Record], trainer: Trainer, publisher: Publisher,
    runs: dict[str, PublishedRun], check_time: Callable[[], None],
) -> None:  # fmt: skip
    """Publish the levels that a trial's run lacks, and finish the run where the trial is done.

    A run with other results than the store's is deleted and made again.
    """
    stored, run = len({record["level"] for record in rows}), trial_run(trial)
    published = runs.get(run.key)
    known = published.digests[:stored] if published else []
    levels = [[row for row in rows if row["level"] == level] for level in range(stored)]
    is_same = published is None or all(
        published.has(i, level_digest(level, publisher.curves))
        for i, level in enumerate(levels[: len(known)])
    )
    found: Iterable[LevelResult] = ()
    if not is_same or len(known) < stored:
        check_unchanged(trial.spec, "the study was swept")
        found = islice(find_tickets(trial.spec, trainer), stored)
    if not is_same:
        check_time()
        found = list(found)  # a run whose trainings the store has lost is not deleted
        publisher.delete(runs.pop(run.key))
        known = []
    for level in found:
        if level.level >= len(known):
            check_time()
            records, files = levels[level.level], level_files(level)
            runs[run.key] = publisher.publish(run, level, records, runs.get(run.key), files)
    if stored == trial.spec.levels + 1 or has_stopped(rows, study.stop, study.verdict.margin):
        runs[run.key] = publisher.finish(run, published=runs[run.key])


def _deadline(uri: str, seconds: float) -> Callable[[], None]:
    """Function that raises a TrackingError once the time is over."""
    deadline = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > deadline:
            raise TrackingError(f"tracking.uri: {uri} took more than {seconds:.0f} s")

    return check


def open_study_publisher(plan: Plan) -> Publisher:
    """The publisher of a study's tracking server.

    A run of the study that is made starts with its first training.

    Raises:
        TrackingError: the study has no tracking server, or it cannot be reached.
    """
    if plan.study.tracking.uri is None:
        command = (
            f"`{plan.study.command()} tracking.uri=ADDRESS` publishes, and trains nothing again"
        )
        raise TrackingError(f"tracking.uri: is null, so there is nowhere to publish to; {command}")
    return study_publisher(plan.study, partial(_first_start, plan))


def _first_start(plan: Plan) -> int | None:
    """Start of the study's first dense run in the store, in ms since 1970."""
    store = existing_store(plan.study.store)
    records = load_records(store, plan.study.name, study_trials(plan, store))
    dense = {record["training_digest"] for record in records if record["branch"] == "dense"}
    starts = [start for digest in dense if (start := load_start(store, digest)) is not None]
    return int(1000 * min(starts)) if starts else None


def _by_trial(
    records: list[Record], axes: list[str], cell_verdicts: list[Verdict]
) -> dict[str, list[Verdict]]:
    """The verdicts on each trial's cell, by the trial's key."""
    by_cell = group_by(cell_verdicts, lambda verdict: list(verdict.cell.values()))
    cell = values_of([axis for axis in axes if axis != "seed"])
    return {record["spec_digest"]: by_cell.get(key_of(cell(record)), []) for record in records}
