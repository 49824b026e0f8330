"""Adaptive search: Optuna's TPE over a study's space; its journal resumes a killed search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lth_core.columns import Record
from lth_core.errors import LthError
from lth_core.store import Store
from sweeps.plan.plan import Trial, check_objective, sampled_trials
from sweeps.report.completeness import missing_work
from sweeps.run.queue import WorkItem
from sweeps.run.worker import config_trials, item_config
from sweeps.store.records import load_records
from sweeps.store.samples import ROUNDED, journal_storage, quiet_optuna, sample_values
from sweeps.studies.axes import Fields, SpecReader, base_values, check_space, combinations
from sweeps.studies.schema import Range, Study

if TYPE_CHECKING:
    import optuna


def open_study(study: Study) -> optuna.Study:
    """Optuna study of a search; samples that a stopped or killed sweep left running come next, in
    new trials."""
    import optuna

    quiet_optuna()
    search = optuna.create_study(
        storage=journal_storage(study),
        study_name=study.name,
        directions=[
            "maximize" if goal == "max" else "minimize" for goal in study.search.objective.values()
        ],
        load_if_exists=True,
    )
    for trial in search.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        search.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        search.enqueue_trial(trial.params)
    return search


class Samples:
    """Samples of a study's space as items of a queue, each with every combination of the axes.

    Optuna is told a sample's values when its item has ended; then the next sample follows.

    Args:
        left: number of samples to run.
        planned: expected number of levels of a sample.
    """

    def __init__(self, study: Study, store: Store, left: int, planned: float = 0.0) -> None:
        self._study, self._store, self._left = study, store, left
        self._planned, self._drawn = planned, 0
        self._search, self._space = open_study(study), distributions(study)
        self._search.sampler = sampler(study, self._search)
        self._points, self._reader = combinations(study), SpecReader(base_values(study))
        self._running: dict[int, optuna.Trial] = {}
        self.failures = list[tuple[str, str]]()
        """Samples that make no spec, with the reason."""
        self._names: dict[str, str] = {}
        """The sample of each trial, by the trial's id."""

    @property
    def levels(self) -> int:
        """Number of levels of the samples drawn so far, and the expected one of those to come."""
        return self._drawn + round(self._left * self._planned)

    def named(self, failed: Mapping[str, str]) -> list[tuple[str, str]]:
        """Failed trials with their samples, and the reasons.

        Args:
            failed: reasons by the trial's id.
        """
        return [(f"{name} ({self._names[name]})", why) for name, why in failed.items()]

    def items(self, count: int = 1) -> Iterator[WorkItem]:
        """Items of the next samples, up to a number."""
        while count and self._left:
            self._left -= 1
            sample = self._search.ask(fixed_distributions=self._space)
            sample.set_user_attr(ROUNDED, True)
            values = sample_values(self._study, sample)
            try:
                trials = sampled_trials(self._points, values, self._reader)
                check_objective(self._study, (trial.spec for trial in trials))
            except LthError as error:
                self._tell(sample, None)
                self.failures.append((_text(values), str(error)))
                continue
            count -= 1
            self._drawn += sum(trial.spec.levels + 1 for trial in trials)
            self._running[sample.number] = sample
            self._names |= {trial.id: _text(values) for trial in trials}
            config = {"sample": sample.number, **item_config([(trial, ()) for trial in trials])}
            yield WorkItem(config, [job for trial in trials for job in trial.jobs()])

    def following(self, ended: WorkItem) -> list[WorkItem]:
        """Tell Optuna what an ended item gave; returns the item of the next sample.

        Raises:
            StoreError: the records cannot be read; then Optuna is told nothing.
        """
        trials = [trial for trial, _ in config_trials(ended.config)]
        values = self._values(trials)
        self._tell(self._running.pop(ended.config["sample"]), values)
        return list(self.items())

    def _values(self, trials: Sequence[Trial]) -> list[float] | None:
        """Means of the objective over the trials' last tickets; None where a trial has failed."""
        study = self._study
        records = load_records(self._store, study.name, trials)
        if missing_work(trials, records, study.stop, study.verdict.margin):
            return None
        last = dict[str, Record]()
        for record in sorted(records, key=lambda record: record["level"]):
            if record["branch"] in ("dense", "ticket"):
                last[record["spec_digest"]] = record
        return [fmean(row[name] for row in last.values()) for name in study.search.objective]

    def _tell(self, sample: optuna.Trial, values: list[float] | None) -> None:
        import optuna

        state = None if values else optuna.trial.TrialState.FAIL
        self._search.tell(sample, values, state)


def finished_samples(search: optuna.Study) -> int:
    """Number of samples that have a value."""
    import optuna

    return len(search.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def samples_left(study: Study) -> int:
    """Number of samples that a search lacks."""
    return max(0, study.search.trials - finished_samples(open_study(study)))


def sampler(study: Study, search: optuna.Study) -> optuna.samplers.TPESampler:
    """Sampler of a search, with another seed at each start.

    With one seed, a resumed search would draw its first samples again.
    """
    import optuna

    return optuna.samplers.TPESampler(
        seed=study.search.seed + len(search.get_trials(deepcopy=False))
    )


def distributions(study: Study) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's distribution of each field of the space."""
    check_space(study)
    quiet_optuna()
    return {name: _distribution(axis) for name, axis in study.search.space.items()}


def _text(sample: Fields) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in sample.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _distribution(axis: Any) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(axis, Range):
        return CategoricalDistribution(axis)
    if axis.count:
        return CategoricalDistribution(axis.values())
    if axis.step and not axis.log:
        if all(float(number).is_integer() for number in (axis.low, axis.high, axis.step)):
            return IntDistribution(int(axis.low), int(axis.high), step=int(axis.step))
        return FloatDistribution(axis.low, axis.high, step=axis.step)
    return FloatDistribution(axis.low, axis.high, log=axis.log)
