"""Samples of an adaptive search, read from its Optuna journal."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lth_core.analysis.groups import distinct, key_of
from lth_core.errors import LthError
from lth_core.resolve import Pins
from lth_core.spec import sha256
from sweeps.plan.plan import Trial, sampled_trials
from sweeps.studies.axes import Fields, SpecReader, base_values, combinations
from sweeps.studies.pins import pins_to_json, study_pins
from sweeps.studies.schema import Range, Study

if TYPE_CHECKING:
    import optuna

ROUNDED = "rounded"
"""Attribute of samples in a journal whose values are rounded."""

# Since Python 3.12 Optuna's warnings name the module that called it.
_OPTUNA_CALLERS = (
    r"(optuna|ray\.tune\.search\.optuna"
    r"|sweeps\.run\.(search|serial|tune)|sweeps\.store\.samples)(\.|$)"
)


def journal(study: Study, pins: Pins | None = None) -> Path:
    """File of a search's samples; a search with another space, base, or code or data of the user's
    has another file.

    Args:
        pins: of the search; by default those of the code and data here.
    """
    digest = study.digest()
    with suppress(LthError):  # where the code or data are missing, nothing is searched
        values = pins_to_json(pins or study_pins(study)) | {"tickets": {}}
        digest = sha256([digest, values]) if any(values.values()) else digest
    return study.folder() / f"optuna-{digest[:12]}.journal"


def journal_storage(study: Study, pins: Pins | None = None) -> optuna.storages.BaseStorage:
    """Optuna's storage over the journal; makes its folder where there is none.

    Args:
        pins: as in `journal`.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = journal(study, pins)
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def quiet_optuna() -> None:
    """Silence Optuna's log and warnings: they are on its own classes, which a user never sees."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module=_OPTUNA_CALLERS)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def completed_samples(study: Study, pins: Pins | None = None) -> list[Fields] | None:
    """Finished samples of the space; None where this machine has no journal.

    The journal is not changed, because a sweep may be running.

    Args:
        pins: as in `journal`.
    """
    samples = _journal_samples(study, pins)
    if samples is None:
        return None
    return [sample_values(study, sample) for sample in samples if _is(sample, "COMPLETE")]


def failed_samples(study: Study, pins: Pins | None = None) -> list[Fields]:
    """Samples that have failed, which no sweep runs again; none without a journal here.

    Args:
        pins: as in `journal`.
    """
    samples = _journal_samples(study, pins) or []
    # A sample that a killed sweep left running is failed, and waits as another one.
    waiting = [sample.system_attrs.get("fixed_params", {}) for sample in samples]
    others = [sample.params for sample in samples if _is(sample, "COMPLETE", "RUNNING")]
    going = distinct([*waiting, *others])
    failed = [sample for sample in samples if _is(sample, "FAIL")]
    return [sample_values(study, each) for each in failed if key_of(each.params) not in going]


def sample_values(study: Study, sample: optuna.trial.BaseTrial) -> Fields:
    """Values of a sample, rounded as those of a grid: 0.3, not 0.30000000000000004.

    Those of samples that an older version drew are not: their trials are stored as they were.
    """
    values = dict(sample.params)
    if sample.user_attrs.get(ROUNDED):
        for name in values:
            if isinstance(axis := study.search.space[name], Range) and axis.step:
                values[name] = axis.rounded(values[name])
    return values


def _journal_samples(study: Study, pins: Pins | None) -> list[optuna.trial.FrozenTrial] | None:
    if not journal(study, pins).is_file():
        return None
    import optuna

    quiet_optuna()
    search = optuna.load_study(study_name=study.name, storage=journal_storage(study, pins))
    return search.get_trials(deepcopy=False)


def _is(sample: optuna.trial.FrozenTrial, *states: str) -> bool:
    return sample.state.name in states


def sample_trials(study: Study, samples: Sequence[Fields], pins: Pins | None = None) -> list[Trial]:
    """Trials of samples, one for each sample and combination of the axes' values.

    Args:
        pins: as in `journal`.
    """
    reader = SpecReader(base_values(study), pins)
    points = combinations(study)
    return [trial for sample in samples for trial in sampled_trials(points, sample, reader)]
