"""What comes after training: records with verdicts, the report, and what MLflow still lacks."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.text import Text

from lth_core import find_tickets
from lth_core.analysis.families import named_apart
from lth_core.analysis.overlaps import with_overlaps
from lth_core.analysis.verdict import WORDS, Verdict, best_word, verdicts
from lth_core.errors import SpecError, StoreError, TrackingError
from lth_core.spec import sha256
from lth_core.store import Store, existing_store, open_store
from lth_core.train import Trainer
from sweeps.plan.plan import Trial, make_plan, summary
from sweeps.plan.stopping import why_stop
from sweeps.report.completeness import (
    MissingWork,
    incomplete_text,
    missing_work,
    planned_replicates,
    with_replicates,
)
from sweeps.run.trial import level_records, trial_run
from sweeps.store.records import (
    load_curves,
    load_mask,
    load_records,
    searched_trials,
    with_verdicts,
)
from sweeps.studies.schema import Study
from tracking.publish import names
from tracking.publish.payload import level_files
from tracking.publish.provenance import versions
from tracking.publish.publisher import Publisher, open_publisher
from tracking.report.html import write_report
from tracking.report.terminal import verdict_table

Record = dict[str, Any]

PATIENCE = 120.0
"""Seconds that a report waits for MLflow; `lth sync` takes what it takes."""


@dataclass(frozen=True)
class Written:
    """Where the report is, and what the user should know."""

    path: Path
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """What the store has of a study, and what it lacks."""

    records: list[Record]
    """A record for every trial, level and branch that is done, with verdicts, overlaps and
    replicates."""
    axes: list[str]
    verdicts: list[Verdict]
    trials: int
    """Trials planned; of an adaptive search, those of the samples so far."""
    missing: list[MissingWork]
    samples: str
    """Samples that an adaptive search lacks, as a sentence without its full stop, or empty."""

    @property
    def incomplete(self) -> str:
        """What is missing, in sentences; empty where nothing is."""
        said = [incomplete_text(self.missing, self.trials), self.samples]
        return " ".join(f"{sentence}." for sentence in said if sentence)

    @property
    def digest(self) -> str:
        """sha256 of what decides the report, besides the study's thresholds."""
        return sha256([self.records, self.axes, self.incomplete])


def study_trials(study: Study, store: Store) -> Sequence[Trial]:
    """The study's trials: planned ones, or those that an adaptive search has made."""
    if study.search.algorithm == "optuna":
        return searched_trials(store, study)
    return make_plan(study).trials


def study_results(study: Study) -> StudyResults:
    """The study's records with what is found in comparing them, and what is missing.

    Raises:
        SpecError: nothing of the study is in its store.
    """
    store = open_store(study.store, make=False)  # asking for a report makes no store
    plan, trials, samples = make_plan(study), study_trials(study, store), ""
    if study.search.algorithm == "optuna":
        trials, samples = _with_lost_trials(study, trials)
    records = load_records(store, study.name, trials)
    if not records:
        rule = f"must have been swept into {study.store} first: lth sweep {study.name}"
        raise SpecError("STUDY", rule, study.name)
    axes, missing = plan.axes, missing_work(trials, records, study.stop, study.tolerance)
    records = with_replicates(records, axes, planned_replicates(plan.trials, trials))
    records = named_apart(records, axes)
    records = with_overlaps(records, axes, lambda digest: load_mask(store, digest))
    records, found = with_verdicts(records, axes, study.tolerance)
    return StudyResults(
        records=records, axes=axes, verdicts=found, trials=len(trials), missing=missing,
        samples=samples,
    )  # fmt: skip


def study_records(study: Study) -> tuple[list[Record], list[Verdict]]:
    """The records and verdicts of `study_results`, and its errors."""
    found = study_results(study)
    return found.records, found.verdicts


def _with_lost_trials(study: Study, stored: Sequence[Trial]) -> tuple[list[Trial], str]:
    """An adaptive search's trials, those of which the store has lost the records too, and a
    sentence on the samples that it lacks, or none."""
    from sweeps.run.search import completed_samples, sample_trials

    completed, trials = completed_samples(study), {trial.digest: trial for trial in stored}
    for trial in sample_trials(study, completed or ()):
        trials.setdefault(trial.digest, trial)
    asked, there, note = study.search.trials, 0, ""
    if completed is not None:
        there = len(completed)
    else:  # the search ran from another folder
        names = study.search.space
        there = len({repr([trial.fields.get(name) for name in names]) for trial in stored})
        note = ", equal ones counted once"
    lacks = there < asked
    said = f"The search has {there} of {asked} samples{note}" if lacks else ""
    return list(trials.values()), said


def finish(study: Study, console: Console, output: Path | None = None) -> Written:
    """Print the verdict, write the report, and put it on the study's run in MLflow."""
    found = study_results(study)
    if found.incomplete:
        console.print(Text(found.incomplete, style="yellow"), soft_wrap=True)
    console.print(verdict_table(found.records, found.axes, study.tolerance, study.stable_below))
    path = _write(study, found, output or study.folder() / "report.html")
    notes = list[str]()
    if study.tracking.uri and output is None:
        try:
            publisher = _publisher(study)
            _, lost = publish_missing(study, publisher, found.records, PATIENCE)
            notes += [lost] if lost else []
            _publish_study(study, publisher, found, lambda: path)
        except (TrackingError, StoreError) as error:
            notes.append(f"{error}; `lth sync {study.name}` publishes what is missing")
    return Written(path, notes)


def sync(study: Study) -> tuple[int, str]:
    """Publish all that MLflow has not got of a study, its own run too; arguments and errors of
    `publish_missing`.

    Raises:
        SpecError: nothing of the study is in its store.
    """
    publisher = _publisher(study)
    found = study_results(study)
    published = publish_missing(study, publisher, found.records)
    # Not in the study's folder: somebody may write the report there at the same time.
    with TemporaryDirectory(prefix="lth-") as folder:
        file = Path(folder) / "report.html"
        _publish_study(study, publisher, found, lambda: _write(study, found, file))
    return published


def _write(study: Study, found: StudyResults, file: Path) -> Path:
    store = existing_store(study.store)
    return write_report(
        file,
        study.name,
        found.records,
        found.axes,
        lambda digest: load_curves(store, digest),
        study.tolerance,
        _about(study, found),
        study.stable_below,
        found.incomplete,
    )


def _publish_study(
    study: Study, publisher: Publisher, found: StudyResults, report: Callable[[], Path]
) -> None:
    """Publish the counts of the verdicts and of the trials, the best verdict, and the report."""
    words = [verdict.verdict for verdict in found.verdicts]
    metrics = {f"verdicts/{word}": float(words.count(word)) for word in WORDS}
    metrics["trials/planned"] = float(found.trials)
    metrics["trials/incomplete"] = float(len(found.missing))
    digest = sha256([found.digest, study.tolerance, study.stable_below])
    publisher.publish_study(digest, report, metrics, {names.VERDICT: best_word(found.verdicts)})


def publish_missing(
    study: Study,
    publisher: Publisher | None = None,
    compared: Sequence[Record] = (),
    seconds: float = float("inf"),
) -> tuple[int, str]:
    """Publish every finished level, overlap and verdict that MLflow has not got; how many trials it
    has, and a sentence on what could not be published, or none.

    A trial of which the store has lost something holds up none of the others.

    Args:
        compared: the study's records with their overlaps, where they were taken before.
        seconds: after which no further level is begun.

    Raises:
        TrackingError: the server cannot be reached or refuses, or time is up.
    """
    publisher, store = publisher or _publisher(study), existing_store(study.store)
    trainer, records = Trainer(store, frozen=True), list[Record]()
    held, hurry, lost = publisher.runs(), _hurry(publisher.uri, seconds), dict[str, StoreError]()
    for trial in study_trials(study, store):
        rows = load_records(store, study.name, [trial])
        if not rows:
            continue
        records += rows
        done, run = len({record["level"] for record in rows}), trial_run(trial)
        first = held[run.key].levels if run.key in held else 0
        try:
            for level in islice(find_tickets(trial.spec, trainer), done) if first < done else ():
                if level.level >= first:
                    hurry()
                    told, files = level_records(trial, study.name, level), level_files(level)
                    held[run.key] = publisher.publish(run, level, told, held.get(run.key), files)
        except StoreError as error:
            lost[trial.id] = error
            continue
        if done == trial.spec.levels + 1 or why_stop(rows, study.stop, study.tolerance):
            held[run.key] = publisher.finish(run, held=held[run.key])
    axes, rows_of = make_plan(study).axes, defaultdict[str, list[Record]](list)
    records = named_apart(records, axes)
    for row in compared or with_overlaps(records, axes, lambda digest: load_mask(store, digest)):
        rows_of[row["spec_digest"]].append(row)
    said = _by_trial(records, axes, verdicts(records, axes, study.tolerance))
    for key in said.keys() & held.keys():
        hurry()
        publisher.publish_compared(held[key], said[key], rows_of[key])
    return len(said), _unpublished(lost) if lost else ""


def _unpublished(lost: Mapping[str, StoreError]) -> str:
    trial, error = next(iter(lost.items()))
    others = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    return f"trial {trial}{others} could not be published: {error}"


def _hurry(uri: str, seconds: float) -> Callable[[], None]:
    """Raises a TrackingError once the time is up."""
    until = time.monotonic() + seconds

    def hurry() -> None:
        if time.monotonic() > until:
            raise TrackingError(f"tracking.uri: {uri} took more than {seconds:.0f} s")

    return hurry


def _publisher(study: Study) -> Publisher:
    if study.tracking.uri is None:
        raise TrackingError("tracking.uri: is null, so there is nowhere to publish to")
    return open_publisher(study.tracking.uri, study.name, f"Study {study.name}")


def _by_trial(
    records: list[Record], axes: list[str], found: list[Verdict]
) -> dict[str, list[Verdict]]:
    """The verdicts on each trial's cell, by the trial's key."""
    by_cell: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in found:
        by_cell[repr(list(verdict.cell.values()))].append(verdict)
    cell = [axis for axis in axes if axis != "seed"]
    return {
        record["spec_digest"]: by_cell[repr([record.get(axis) for axis in cell])]
        for record in records
    }


def _about(study: Study, found: StudyResults) -> dict[str, str]:
    """How the study was run, for its report."""
    plan, records = make_plan(study), found.records
    there = len({record["trial"] for record in records})
    trained = [record for record in records if not record["reused"]]
    return {
        "study": study.name,
        "command": " ".join(["lth", *sys.argv[1:]]),
        "data": study.base.data.name,
        "model": study.base.model.name,
        "training": f"{study.base.train.optimizer}, lr {study.base.train.lr:g}, batch "
        f"{study.base.train.batch_size}, {study.base.train.steps}",
        "trials": str(there) if there == found.trials else f"{there} of {found.trials}",
        "seeds": ", ".join(map(str, sorted({record["seed"] for record in records}))),
        "trainings planned": str(summary(plan)["trainings_unique"]),
        "trainings run in the last sweep": f"{len(trained)}, the rest came from the store",
        **{f"version: {name}": version for name, version in versions().items()},
    }
