"""Run of one trial: the records of each level are stored, published and yielded."""

from __future__ import annotations

import os
from bdb import BdbQuit
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from lth_core import find_tickets
from lth_core.columns import Record
from lth_core.errors import LthError, PreemptedError, exception_text
from lth_core.resolve import check_unchanged
from lth_core.store import existing_store
from lth_core.train import CHECKPOINT_EVERY, Trainer
from lth_core.train.precision import all_threads_flush, flushed_denormals
from sweeps.plan.plan import Trial
from sweeps.plan.stopping import has_stopped
from sweeps.store.published import level_records, trial_run
from sweeps.store.records import TRIALS, record_key, save_records
from sweeps.studies.schema import Stop
from tracking.publish.background import background_of
from tracking.publish.publisher import Publisher

DRAIN_SECONDS = 20.0
"""Seconds that a process may spend on publishing after its last trial."""


@dataclass(frozen=True)
class SweepContext:
    """Values that all trials of a sweep share; they are sent to the workers."""

    study: str
    study_digest: str
    store: str
    """Absolute address: a worker's folder is not the user's."""
    stop: Stop
    margin: float
    cpu: float
    checkpoint_every: float
    """Checkpoint interval in seconds."""
    tracking: Publisher | None
    pack: int | Literal["auto"] = 1
    """Most trials that train together, as `Resources.pack`."""
    compiled: bool = False
    """As `Resources.compile`."""
    probes: bool = False
    """Whether the trials are probes of `lth rewind`."""
    folder: str = ""
    """Folder in which workers look for the user's modules; empty: none."""


def run_trial(
    trial: Trial, context: SweepContext, trainer: Trainer, keep: Sequence[int] = ()
) -> Iterator[list[Record]]:
    """Search for the trial's tickets; yields the records of each level after they are stored.

    Args:
        keep: steps of the dense run that other trials rewind to.

    Trials do not wait for a tracking server that fails or is slow: `lth sync` publishes the
    missing levels from the store.
    """
    records: list[Record] = []
    publishing = background_of(context.tracking) if context.tracking else None
    run = trial_run(trial, probe=context.probes)
    try:
        if not trainer.store.has(TRIALS, record_key(context.study, trial)):
            # An entry without records, so that `lth store gc` keeps the first trainings.
            save_records(trainer.store, context.study, context.study_digest, trial, records)
        check_unchanged(trial.spec, "the sweep was planned")
        for level in find_tickets(trial.spec, trainer, keep):
            rows = level_records(trial, context.study, level)
            records += rows
            save_records(trainer.store, context.study, context.study_digest, trial, records)
            if publishing:
                publishing.publish(run, level, rows)
            yield rows
            if has_stopped(records, context.stop, context.margin):
                break
    # A closed generator was interrupted too: another trial of its process received the signal.
    except (PreemptedError, BdbQuit, KeyboardInterrupt, GeneratorExit):
        if publishing:
            publishing.finish(run, "KILLED")
        raise
    # A user's network or data may raise anything. It is raised again: here only the trial's MLflow
    # run ends as failed, which would stay RUNNING otherwise.
    except Exception as error:
        if publishing:
            publishing.finish(run, "FAILED", reason(error))
        raise
    if publishing:
        publishing.finish(run)


def reason(error: Exception) -> str:
    """Reason of a trial's failure, on one line without secrets."""
    return str(error) if isinstance(error, LthError) else exception_text(error)


def trial_line(trial: Trial, rows: Sequence[Record]) -> str:
    """A finished level in one line, for the progress bar."""
    accuracies = " ".join(f"{r['branch']} {r['final_test_accuracy']:.3f}" for r in rows)
    return f"{trial.id[:6]} level {rows[0]['level']} density {rows[0]['density']:.3f} {accuracies}"


@lru_cache(maxsize=1)
def make_trainer(
    store: str,
    checkpoint_every: float = CHECKPOINT_EVERY,
    pack: int | Literal["auto"] = 1,
    compiled: bool = False,
) -> Trainer:
    """This process's trainer; a reused worker keeps it and its data.

    Raises:
        SpecError: there is no such store.
    """
    return Trainer(
        existing_store(store), checkpoint_every=checkpoint_every, pack=pack, compiled=compiled
    )


def drain_publishing(context: SweepContext) -> None:
    """Publish remaining levels for at most `DRAIN_SECONDS`; `lth sync` does the rest."""
    if context.tracking:
        background_of(context.tracking).drain(DRAIN_SECONDS)


def use_threads(cpu: float) -> None:
    """Set the number of torch's threads to the trial's number of CPUs."""
    torch.set_num_threads(max(1, int(cpu)))
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpu)))
    with flushed_denormals():
        all_threads_flush()  # starts torch's threads, which so inherit the setting
