"""Results of a study: its records with comparisons, verdicts, and the records that are missing."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from lth_core.analysis.families import named_by_form
from lth_core.analysis.groups import distinct, group_by, key_of, values_of
from lth_core.analysis.overlaps import with_overlaps
from lth_core.analysis.verdict import Verdict
from lth_core.columns import Record
from lth_core.errors import SpecError
from lth_core.parallel import map_in_threads
from lth_core.resolve import Pins
from lth_core.spec import sha256
from lth_core.store import Store, open_store
from sweeps.plan.plan import Plan, Trial
from sweeps.plan.recorded import TRIALS, read_trial
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
from sweeps.store.samples import completed_samples, failed_samples, sample_trials
from sweeps.store.status import has_failures
from sweeps.studies.schema import Study
from tracking.report.answer import Answer, study_answer
from tracking.report.search_table import BestSetting, best_settings


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
    best: Sequence[BestSetting] = ()
    """Best settings of an adaptive search."""

    @property
    def incomplete(self) -> str:
        """Sentences on the missing trials and samples; empty where there are none."""
        sentences = [incomplete_text(self.missing, self.trials), self.samples]
        return " ".join(f"{sentence}." for sentence in sentences if sentence)

    @property
    def unfinished(self) -> str:
        """`10 of 96 levels are done`; empty where the study is finished."""
        if self.samples:
            return self.samples[0].lower() + self.samples[1:]
        done = len({(record["trial"], record["level"]) for record in self.records})
        missing = sum(each.planned - each.levels for each in self.missing)
        return f"{done} of {done + missing} levels are done" if missing else ""

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
    awaited, space = trials, list[str]()
    if study.search.algorithm == "optuna":
        trials, awaited, samples = _with_lost_trials(study, trials, swept_pins(store, study))
        space = list(study.search.space)
    records = load_records(store, study.name, trials)
    if not records:
        raise SpecError("STUDY", _without_records(study, store), study.name)
    axes, every = plan.axes, missing_work(trials, records, study.stop, study.verdict.margin)
    names = {trial.id for trial in awaited}
    replicates = {} if "seed" in space else planned_replicates(plan.trials, trials, space)
    records = with_replicates(records, axes, replicates)
    records = named_by_form(records, axes)
    records = with_overlaps(records, axes, lambda digest: load_mask(store, digest))
    records = with_latencies(records, trials, store)
    records, cell_verdicts = with_verdicts(records, axes, study.verdict.rule())
    whole = _whole_samples(plan, trials, {work.trial for work in every}) if space else set()
    finished = [record for record in records if record["trial"] in whole]
    return StudyResults(
        records=records, axes=axes, verdicts=cell_verdicts, trials=len(trials),
        missing=[work for work in every if work.trial in names], samples=samples,
        best=best_settings(finished, study.search.objective, space),
    )  # fmt: skip


def _without_records(study: Study, store: Store) -> str:
    """The rule that a study without records breaks."""
    failed = has_failures(store, study)
    errors = f"; `lth status {study.name}` shows errors of its latest sweep" if failed else ""
    keys = [key for key in store.digests(TRIALS) if key.rpartition(".")[0] == study.name]
    trials = [trial for trial in map_in_threads(partial(read_trial, store), keys) if trial]
    if others := sum(bool(trial["records"]) for trial in trials):
        stored = "1 trial is" if others == 1 else f"{others} trials are"
        return (
            f"must have a finished trial of these settings and this code: {study.command()}{errors}"
            f"; {stored} stored of others, which `lth sweep` with those reports, training nothing"
        )
    if failed:
        return f"must have a trial that has not failed{errors}"
    return f"must have been swept into {study.store} first: {study.command()}"


def _whole_samples(plan: Plan, trials: Sequence[Trial], short: Set[str]) -> set[str]:
    """Ids of the trials of an adaptive search's samples that have all their trials and levels.

    Args:
        short: ids of trials that lack levels.
    """
    values = values_of(list(plan.study.search.space))
    planned, made = (group_by(each, lambda t: values(t.fields)) for each in (plan.trials, trials))
    size = max(map(len, planned.values()))
    whole = [group for group in made.values() if len(group) >= size]
    return {trial.id for group in whole if not short & {t.id for t in group} for trial in group}


def objective_of(study: Study) -> list[str]:
    """Columns by which an adaptive search chose the settings; empty for other studies."""
    return list(study.search.objective) if study.search.algorithm == "optuna" else []


def varied_values(plan: Plan, results: StudyResults, axis: str) -> list[Any]:
    """Values of an axis in the planned trials, or in those that an adaptive search has made."""
    if plan.study.search.algorithm == "optuna":
        return list(distinct(record.get(axis) for record in results.records).values())
    return list(distinct(trial.fields.get(axis) for trial in plan.trials).values())


def answer_of(study: Study, results: StudyResults) -> Answer:
    """The answer that the results give; says how much is done where the study is unfinished."""
    return study_answer(
        results.records, results.axes, study.verdict.rule(), results.unfinished,
        objective=objective_of(study),
    )  # fmt: skip


def _with_lost_trials(
    study: Study, stored: Sequence[Trial], pins: Pins | None
) -> tuple[list[Trial], list[Trial], str]:
    """Trials of an adaptive search, including those whose records the store has lost; those of them
    that a sweep would complete; and a sentence on the missing samples, or an empty text.

    No sweep runs a sample again that has failed.

    Args:
        pins: of the study as it was last swept.
    """
    trials = {trial.digest: trial for trial in stored}
    values = values_of(list(study.search.space))
    completed, failed = completed_samples(study, pins), failed_samples(study, pins)
    sampled = sample_trials(study, completed or (), pins)
    trials |= {trial.digest: trial for trial in sampled if trial.digest not in trials}
    planned, note = study.search.trials, f"; {len(failed)} failed" * bool(failed)
    if completed is not None:
        count = len(completed)
    else:  # the search ran from another folder
        count = len(distinct(values(trial.fields) for trial in stored))
        note = ", equal ones counted once"
    text = f"The search has {count} of {planned} samples{note}" if count < planned else ""
    every, ended = list(trials.values()), set(distinct(map(values, failed)))
    begun = [trial for trial in every if key_of(values(trial.fields)) not in ended]
    return every, begun if text or completed is None else sampled, text
