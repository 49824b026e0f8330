"""One trial: search level by level; keep, publish and hand out each level's records."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from lth_core import find_tickets
from lth_core.errors import TrackingError
from lth_core.results import LevelResult
from lth_core.store import open_store
from lth_core.train import Trainer
from lth_core.when import method
from sweeps.config import Stop
from sweeps.plan import Trial
from sweeps.records import save_records
from sweeps.stopping import why_stop
from tracking.publish import Publisher, TrialRun

logger = logging.getLogger("lth")

Record = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all trials of a sweep share; goes to the workers by value."""

    study: str
    study_digest: str
    store: str
    """Absolute: a worker's folder is not the user's."""
    stop: Stop
    tolerance: float | None
    cpu: float
    tracking: Publisher | None


def run_trial(
    trial: Trial, setting: Setting, trainer: Trainer, keep: Sequence[int] = ()
) -> Iterator[list[Record]]:
    """Search for the trial's tickets; yields each level's records once they are kept.

    Args:
        keep: steps of the dense run that other trials rewind to.

    A tracking server that fails does not stop a trial: what was not published stays in the store
    for `lth sync`.
    """
    records: list[Record] = []
    publisher = setting.tracking
    run = trial_run(trial)
    for level in find_tickets(trial.spec, trainer, keep):
        rows = level_records(trial, setting.study, level)
        records += rows
        save_records(trainer.store, setting.study, setting.study_digest, trial, records)
        if publisher:
            try:
                publisher.publish(run, level, rows)
            except TrackingError as error:
                logger.warning("%s; `lth sync` publishes what is missing", error)
                publisher = None
        yield rows
        if why_stop(records, setting.stop, setting.tolerance):
            break
    if publisher:
        try:
            publisher.finish(run)
        except TrackingError as error:
            logger.warning("%s; `lth sync` publishes what is missing", error)


def level_records(trial: Trial, study: str, level: LevelResult) -> list[Record]:
    """A level's records with the study's columns."""
    return [
        {"study": study, "trial": trial.id, **record, **trial.fields, "seed": trial.spec.seed}
        for record in level.records()
    ]


def trial_run(trial: Trial) -> TrialRun:
    """The trial as tracking knows it."""
    told = {"prune.when", "prune.score", "prune.scope", "prune.structure", "prune.grow",
            "prune.one_shot", "branches"}  # fmt: skip
    named = [f"{field}={value}" for field, value in trial.fields.items() if field not in told]
    name = " ".join([method(trial.spec), *named])
    return TrialRun(key=trial.digest, name=name, fields=trial.fields, spec=trial.spec)


@lru_cache(maxsize=1)
def make_trainer(store: str) -> Trainer:
    """This process's trainer; a reused worker keeps it and its data."""
    return Trainer(open_store(store))


def use_threads(cpu: float) -> None:
    """Give torch as many threads as the trial has CPUs."""
    torch.set_num_threads(max(1, int(cpu)))
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpu)))
