"""Sync of a study with MLflow: publish the levels in the store that MLflow lacks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from sweeps.store.published import level_records, trial_run
from sweeps.store.records import load_mask, load_records
from sweeps.studies.schema import Study
from tracking.publish import names
from tracking.publish.payload import level_files
from tracking.publish.publisher import Publisher, open_publisher
from tracking.publish.runs import PublishedRun


def sync(plan: Plan) -> tuple[int, str]:
    """Publish the levels of a study that MLflow lacks, and the study's own run.

    Returns:
        The result of `publish_missing`.

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
    digest = sha256([results.digest, study.tolerance, study.stable_below])
    publisher.publish_study(digest, report, metrics, {names.VERDICT: best_word(results.verdicts)})


def publish_missing(
    plan: Plan,
    publisher: Publisher | None = None,
    compared: Sequence[Record] = (),
    seconds: float = float("inf"),
) -> tuple[int, str]:
    """Publish every finished level, overlap and verdict that MLflow lacks.

    A trial with lost store entries is skipped; the others are published.

    Args:
        compared: the study's records with their overlaps, if known.
        seconds: time after which no further level is published.

    Returns:
        Number of trials in MLflow, and a sentence on the trials that could not be published, or an
        empty text.

    Raises:
        TrackingError: the server cannot be reached or refuses a request, or the time is over.
    """
    study = plan.study
    publisher, store = publisher or open_study_publisher(study), existing_store(study.store)
    trainer, records = Trainer(store, frozen=True), list[Record]()
    runs, failures = publisher.runs(), dict[str, StoreError]()
    check_time = _deadline(publisher.uri, seconds)
    for trial in study_trials(plan, store):
        rows = load_records(store, study.name, [trial])
        if not rows:
            continue
        records += rows
        try:
            _publish_trial(study, trial, rows, trainer, publisher, runs, check_time)
        except StoreError as error:
            failures[trial.id] = error
    axes, rows_of = plan.axes, defaultdict[str, list[Record]](list)
    records = named_by_form(records, axes)
    for row in compared or with_overlaps(records, axes, lambda digest: load_mask(store, digest)):
        rows_of[row["spec_digest"]].append(row)
    verdicts_of = _by_trial(records, axes, verdicts(records, axes, study.tolerance))
    for key in verdicts_of.keys() & runs.keys():
        check_time()
        publisher.publish_compared(runs[key], verdicts_of[key], rows_of[key])
    return len(verdicts_of), _failures_text(failures) if failures else ""


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
    if stored == trial.spec.levels + 1 or why_stop(rows, study.stop, study.tolerance):
        runs[run.key] = publisher.finish(run, published=runs[run.key])


def _failures_text(failures: Mapping[str, StoreError]) -> str:
    trial, error = next(iter(failures.items()))
    others = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return f"trial {trial}{others} could not be published: {error}"


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
