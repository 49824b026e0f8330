"""Adaptive search: Optuna's TPE over a study's space; its journal resumes a killed search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeps.store.samples import journal_storage, quiet_optuna
from sweeps.studies.axes import check_space
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


def finished_samples(search: optuna.Study) -> int:
    """Number of samples that have a value."""
    import optuna

    return len(search.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


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


def best_lines(search: optuna.Study, study: Study) -> list[str]:
    """A line for the best sample, or for each sample of the Pareto front."""
    lines = []
    for trial in search.best_trials if finished_samples(search) else []:
        values = dict(zip(study.search.objective, trial.values, strict=True))
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        sample = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
        lines.append(f"{text}  at  {sample}")
    return lines


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
