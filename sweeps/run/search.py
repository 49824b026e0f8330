"""Adaptive search: Optuna's TPE over the study's space, kept on disk, going on after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.plan.plan import Trial
from sweeps.studies.axes import Fields, SpecReader, base_values, cells, check_space
from sweeps.studies.schema import Range, Study

if TYPE_CHECKING:
    import optuna
    from ray.tune.search.optuna import OptunaSearch


def journal(study: Study) -> Path:
    """The file that remembers a search; another space or base gets another file."""
    return study.folder() / f"optuna-{study.digest()[:12]}.journal"


def open_study(study: Study) -> optuna.Study:
    """The Optuna study of a search, with trials that a killed sweep left running marked failed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = optuna.create_study(
        storage=_storage(study),
        study_name=study.name,
        directions=[
            "maximize" if way == "max" else "minimize" for way in study.search.objective.values()
        ],
        load_if_exists=True,
    )
    for trial in found.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        found.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return found


def finished(found: optuna.Study) -> int:
    """Samples that have a value."""
    import optuna

    return len(found.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))


def completed_samples(study: Study) -> list[Fields] | None:
    """Samples of the space that have a value; None where this machine has no journal.

    Reads only: a sweep may be under way.
    """
    if not journal(study).is_file():
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = optuna.load_study(study_name=study.name, storage=_storage(study))
    states = (optuna.trial.TrialState.COMPLETE,)
    return [trial.params for trial in found.get_trials(deepcopy=False, states=states)]


def sample_trials(study: Study, samples: Sequence[Fields]) -> list[Trial]:
    """The trials of samples: each on every cell of the axes."""
    reader = SpecReader(base_values(study))
    points = [{**sample, **cell} for sample in samples for cell in cells(study)]
    return [Trial(fields, reader.spec(fields)) for fields in points]


def searcher(study: Study, found: optuna.Study) -> OptunaSearch:
    """Tune's searcher over the Optuna study."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    check_space(study)
    # A seed that went on from the start would draw the first samples again after a kill.
    seed = study.search.seed + len(found.get_trials(deepcopy=False))
    return OptunaSearch(
        space={name: _distribution(axis) for name, axis in study.search.space.items()},
        metric=list(study.search.objective),
        mode=list(study.search.objective.values()),
        sampler=optuna.samplers.TPESampler(seed=seed),
        study_name=study.name,
        storage=_storage(study),
    )


def best(found: optuna.Study, study: Study) -> list[str]:
    """The best sample, or the Pareto front, a line each."""
    lines = []
    for trial in found.best_trials if finished(found) else []:
        values = dict(zip(study.search.objective, trial.values, strict=True))
        said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        at = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
        lines.append(f"{said}  at  {at}")
    return lines


def _storage(study: Study) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = journal(study)
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


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
