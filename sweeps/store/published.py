"""A trial's run and records as they are published."""

from __future__ import annotations

from lth_core.columns import Record
from lth_core.jobs.methods import method
from lth_core.results import LevelResult
from sweeps.plan.plan import Trial
from sweeps.store.records import with_axis_values
from tracking.publish.publisher import TrialRun

METHOD_FIELDS = {"prune.when", "prune.score", "prune.scope", "prune.structure", "prune.grow",
                 "prune.one_shot", "branches"}  # fmt: skip
"""Fields that the method's name implies, or that are too long for a run's name."""


def level_records(trial: Trial, study: str, level: LevelResult) -> list[Record]:
    """A level's records with the study's columns."""
    columns = {"study": study, "trial": trial.id}
    if trial.spec.ticket:
        columns["source_ticket"] = trial.spec.ticket
    return [with_axis_values({**columns, **record}, trial) for record in level.records]


def trial_run(trial: Trial) -> TrialRun:
    """The trial's run in tracking."""
    fields = [f"{name}={value}" for name, value in trial.fields.items()
              if name not in METHOD_FIELDS]  # fmt: skip
    name = " ".join([method(trial.spec), *fields])
    return TrialRun(key=trial.digest, name=name, fields=trial.fields, spec=trial.spec)
