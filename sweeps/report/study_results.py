"""Results of a study: its records with comparisons, verdicts, and the records that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lth_core.analysis.families import named_by_form
from lth_core.analysis.groups import distinct, values_of
from lth_core.analysis.overlaps import with_overlaps
from lth_core.analysis.verdict import Verdict
from lth_core.columns import Record
from lth_core.errors import SpecError
from lth_core.resolve import Pins
from lth_core.spec import sha256
from lth_core.store import Store, open_store
from sweeps.plan.plan import Plan, Trial
from sweeps.report.completeness import (
    MissingWork,
    incomplete_text,
    missing_work,
    planned_replicates,
    with_replicates,
)
from sweeps.store.latencies import with_latencies
from sweeps.store.records import (
    load_mask,
    load_records,
    searched_trials,
    swept_pins,
    with_verdicts,
)
from sweeps.store.samples import completed_samples, sample_trials
from sweeps.studies.schema import Study
from tracking.report.answer import Answer, study_answer


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """Records and verdicts of a study in the store, and the work that is missing."""

    records: list[Record]
    """Records of every finished trial, level and branch, with verdicts, overlaps, latencies and
    replicates."""
    axes: list[str]
    verdicts: list[Verdict]
    trials: int
    """Number of trials planned; of an adaptive search, the number made so far."""
    missing: list[MissingWork]
    samples: str
    """Sentence, without its full stop, on the samples that an adaptive search lacks, or empty."""

    @property
    def incomplete(self) -> str:
        """Sentences on the missing trials and samples; empty where there are none."""
        sentences = [incomplete_text(self.missing, self.trials), self.samples]
        return " ".join(f"{sentence}." for sentence in sentences if sentence)

    @property
    def unfinished(self) -> str:
        """`10 of 96 levels are done`; empty where the study is finished."""
        done = len({(record["trial"], record["level"]) for record in self.records})
        missing = sum(each.planned - each.levels for each in self.missing)
        return f"{done} of {done + missing} levels are done" if missing else self.samples.lower()

    @property
    def digest(self) -> str:
        """sha256 of everything but the study's thresholds that decides the report."""
        return sha256([self.records, self.axes, self.incomplete])


def study_trials(plan: Plan, store: Store) -> Sequence[Trial]:
    """The study's planned trials, or the trials that an adaptive search has made."""
    if plan.study.search.algorithm == "optuna":
        return searched_trials(store, plan.study)
    return plan.trials


def study_results(plan: Plan) -> StudyResults:
    """The study's records, compared with each other, and its missing work.

    Raises:
        SpecError: the store has no records of the study.
    """
    study = plan.study
    store = open_store(study.store, make=False)  # a report makes no store
    trials, samples = study_trials(plan, store), ""
    awaited = trials
    if study.search.algorithm == "optuna":
        trials, awaited, samples = _with_lost_trials(study, trials, swept_pins(store, study))
    records = load_records(store, study.name, trials)
    if not records:
        rule = f"must have been swept into {study.store} first: {study.command()}"
        raise SpecError("STUDY", rule, study.name)
    axes, missing = plan.axes, missing_work(awaited, records, study.stop, study.verdict.margin)
    records = with_replicates(records, axes, planned_replicates(plan.trials, trials))
    records = named_by_form(records, axes)
    records = with_overlaps(records, axes, lambda digest: load_mask(store, digest))
    records = with_latencies(records, trials, store)
    records, cell_verdicts = with_verdicts(records, axes, study.verdict.rule())
    return StudyResults(
        records=records, axes=axes, verdicts=cell_verdicts, trials=len(trials), missing=missing,
        samples=samples,
    )  # fmt: skip


def answer_of(study: Study, results: StudyResults) -> Answer:
    """The answer that the results give; says how much is done where the study is unfinished."""
    return study_answer(
        results.records, results.axes, study.verdict.rule(), results.unfinished,
        searched=study.search.algorithm == "optuna",
    )  # fmt: skip


def _with_lost_trials(
    study: Study, stored: Sequence[Trial], pins: Pins | None
) -> tuple[list[Trial], list[Trial], str]:
    """Trials of an adaptive search, including those whose records the store has lost; those of them
    that a sweep would complete; and a sentence on the missing samples, or an empty text.

    Once the search has its samples, no sweep runs those again that have failed.

    Args:
        pins: of the study as it was last swept.
    """
    trials = {trial.digest: trial for trial in stored}
    completed = completed_samples(study, pins)
    sampled = sample_trials(study, completed or (), pins)
    trials |= {trial.digest: trial for trial in sampled if trial.digest not in trials}
    planned, note = study.search.trials, ""
    if completed is not None:
        count = len(completed)
    else:  # the search ran from another folder
        values = values_of(list(study.search.space))
        count = len(distinct(values(trial.fields) for trial in stored))
        note = ", equal ones counted once"
    text = f"The search has {count} of {planned} samples{note}" if count < planned else ""
    every = list(trials.values())
    return every, every if text or completed is None else sampled, text
