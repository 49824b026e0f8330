"""Sync of a study with MLflow: publish the levels in the store that MLflow lacks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from lth_core import find_tickets
from lth_core.analysis.families import named_by_form
from lth_core.analysis.groups import group_by, key_of, values_of
from lth_core.analysis.overlaps import with_overlaps
from lth_core.analysis.verdict import WORDS, Verdict, best_word, verdicts
from lth_core.columns import Record
from lth_core.errors import StoreError, TrackingError
from lth_core.spec import sha256
from lth_core.store import existing_store
from lth_core.train import Trainer
from sweeps.plan.plan import Plan, Trial
from sweeps.plan.stopping import why_stop
from sweeps.report.study_html import write_html
from sweeps.report.study_results import StudyResults, study_results, study_trials
from sweeps.report.winners import winning_tickets
from sweeps.store.published import level_records, trial_run
from sweeps.store.records import load_mask, load_records
from sweeps.studies.schema import Study
from tracking.publish import names
from tracking.publish.client import RefusedError
from tracking.publish.payload import level_files
from tracking.publish.publisher import Publisher, open_publisher
from tracking.publish.runs import PublishedRun
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

    def failure_lines(self) -> list[str]:
        """A line for each trial that could not be published, up to a number of trials."""
        lines = [f"trial {trial} could not be published: {r}" for trial, r in self.failures.items()]
        left = len(lines) - MOST_SHOWN
        return [*lines[:MOST_SHOWN], *([f"{left} more trials could not"] if left > 0 else [])]


def sync(plan: Plan) -> Published:
    """Publish the levels of a study that MLflow lacks, and the study's own run.

    Raises:
        SpecError: the store has no records of the study.
        TrackingError: as `publish_missing`.
    """
    publisher = open_study_publisher(plan.study)
    results = study_results(plan)
    published = publish_missing(plan, publisher, results.records)
    # Not in the study's folder: a report may be written there at the same time.
    with TemporaryDirectory(prefix="lth-") as folder:
        file = Path(folder) / "report.html"
        publish_study(plan.study, publisher, results, lambda: write_html(plan, results, file))
    return published


def publish_study(
    study: Study, publisher: Publisher, results: StudyResults, report: Callable[[], Path]
) -> None:
    """Publish the counts of the verdicts and of the trials, the best verdict, and the report."""
    words = [verdict.verdict for verdict in results.verdicts]
    metrics = {f"verdicts/{word}": float(words.count(word)) for word in WORDS}
    metrics["trials/planned"] = float(results.trials)
    metrics["trials/incomplete"] = float(len(results.missing))
    digest = sha256([results.digest, study.verdict.model_dump(), study.stable_below])
    register_winners(publisher, study.name, winning_tickets(study.name, results))
    publisher.publish_study(digest, report, metrics, {names.VERDICT: best_word(results.verdicts)})


def publish_missing(
    plan: Plan,
    publisher: Publisher | None = None,
    compared: Sequence[Record] = (),
    seconds: float = float("inf"),
) -> Published:
    """Publish every finished level, overlap and verdict that MLflow lacks.

    A trial with lost store entries, or that MLflow refuses, is skipped; the others are published.

    Args:
        compared: the study's records with their overlaps, if known.
        seconds: time after which no further level is published.

    Raises:
        TrackingError: the server cannot be reached, refuses to list runs, or the time is over.
    """
    study = plan.study
    publisher, store = publisher or open_study_publisher(study), existing_store(study.store)
    trainer, records = Trainer(store, frozen=True), list[Record]()
    runs, failures = publisher.runs(), dict[str, str]()
    check_time = _deadline(publisher.uri, seconds)
    for trial in study_trials(plan, store):
        rows = load_records(store, study.name, [trial])
        if not rows:
            continue
        records += rows
        try:
            _publish_trial(study, trial, rows, trainer, publisher, runs, check_time)
        except (StoreError, RefusedError) as error:
            failures[trial.id] = str(error)
    axes, rows_of = plan.axes, defaultdict[str, list[Record]](list)
    records = named_by_form(records, axes)
    for row in compared or with_overlaps(records, axes, lambda digest: load_mask(store, digest)):
        rows_of[row["spec_digest"]].append(row)
    verdicts_of = _by_trial(records, axes, verdicts(records, axes, study.verdict.rule()))
    published = verdicts_of.keys() & runs.keys()
    for key in published:
        check_time()
        try:
            publisher.publish_compared(runs[key], verdicts_of[key], rows_of[key])
        except RefusedError as error:
            failures.setdefault(rows_of[key][0]["trial"], str(error))
    return Published(len(published), failures)


def _publish_trial(
    study: Study, trial: Trial, rows: Sequence[Record], trainer: Trainer, publisher: Publisher,
    runs: dict[str, PublishedRun], check_time: Callable[[], None],
) -> None:  # fmt: skip
    """Publish the levels that a trial's run lacks, and finish the run where the trial is done."""
    stored, run = len({record["level"] for record in rows}), trial_run(trial)
    published = runs[run.key].levels if run.key in runs else 0
    for level in islice(find_tickets(trial.spec, trainer), stored) if published < stored else ():
        if level.level >= published:
            check_time()
            records, files = level_records(trial, study.name, level), level_files(level)
            runs[run.key] = publisher.publish(run, level, records, runs.get(run.key), files)
    if stored == trial.spec.levels + 1 or why_stop(rows, study.stop, study.verdict.margin):
        runs[run.key] = publisher.finish(run, published=runs[run.key])


def _deadline(uri: str, seconds: float) -> Callable[[], None]:
    """Function that raises a TrackingError once the time is over."""
    deadline = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > deadline:
            raise TrackingError(f"tracking.uri: {uri} took more than {seconds:.0f} s")

    return check


def open_study_publisher(study: Study) -> Publisher:
    """The publisher of a study's tracking server.

    Raises:
        TrackingError: the study has no tracking server, or it cannot be reached.
    """
    if study.tracking.uri is None:
        raise TrackingError("tracking.uri: is null, so there is nowhere to publish to")
    return open_publisher(study.tracking.uri, study.name, f"Study {study.name}")


def _by_trial(
    records: list[Record], axes: list[str], cell_verdicts: list[Verdict]
) -> dict[str, list[Verdict]]:
    """The verdicts on each trial's cell, by the trial's key."""
    by_cell = group_by(cell_verdicts, lambda verdict: list(verdict.cell.values()))
    cell = values_of([axis for axis in axes if axis != "seed"])
    return {record["spec_digest"]: by_cell.get(key_of(cell(record)), []) for record in records}
