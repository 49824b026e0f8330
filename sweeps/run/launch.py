"""Launch: what the store lacks goes to Ray Tune; then every trial is read back and reported.

A sweep called again is the same call: the store, not Tune's snapshot, says what is missing.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lth_core import data
from lth_core.errors import StoreError, TrackingError
from lth_core.store import Store, open_store
from lth_core.store.decode import side_by_side
from lth_core.train import Trainer
from lth_core.train.checkpoint import checkpoint_step
from sweeps.clusters.capacity import tune_resources
from sweeps.clusters.connect import check_greets, joined
from sweeps.plan.plan import Plan, Trial, is_stored, make_plan
from sweeps.plan.stopping import why_stop
from sweeps.report.completeness import missing_work
from sweeps.run.signals import ended_at_once, ended_gently
from sweeps.run.trial import Setting, make_trainer, run_trial
from sweeps.store.records import TRIALS, load_records, record_key, register, save_records
from sweeps.studies.axes import base_values, cells, spec_of
from sweeps.studies.find import remember
from sweeps.studies.schema import Study
from tracking.publish.publisher import Publisher, open_publisher

if TYPE_CHECKING:
    from ray.tune.search import Searcher

    from sweeps.run.queue import Piece, TrainOnce

LEAST_ROUND, ROUND_EACH = 1000, 50
"""Trials that one Tuner is given: at least, and for each that runs at once."""


@dataclass
class Outcome:
    """How a sweep ended: failed work as (name, reason), notes for the user."""

    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def launch(study: Study, console: Console, address: str | None, using: ExitStack) -> Outcome:
    """Run what is missing of a study.

    Args:
        using: holds Ray for as long as its caller likes. Ray 2.60 may crash a process some seconds
            after it was let go of: so let go of it last of all.

    Raises:
        LthError: bad input, before anything runs.
        InterruptedSweepError: by Ctrl-C or SIGTERM.
    """
    if address is not None:
        check_greets(address)  # before MLflow is asked, and the store
    plan = make_plan(study)
    if address is None:
        check_data(plan)
    trainer, outcome = sweep_trainer(study), Outcome()
    setting = make_setting(study, outcome)
    register(trainer.store, study)  # one that takes nothing says so before Ray starts
    adaptive = study.search.algorithm == "optuna"
    missing = {} if adaptive else _missing(plan, trainer)
    lanes = join(study, setting, address, using) if missing or adaptive else 0
    remember(study)  # not what a cluster refused: the one before is still the latest
    if adaptive:
        trials = _search(study, setting, trainer.store, console, outcome, lanes)
        check_records(study, trials, trainer.store, outcome)
        return outcome
    if missing:
        _sweep(plan, list(missing.values()), setting, trainer, console, outcome, lanes)
    _tell(plan, missing, setting, trainer)
    check_records(study, plan.trials, trainer.store, outcome)
    return outcome


def check_records(study: Study, trials: Sequence[Trial], store: Store, outcome: Outcome) -> None:
    """Count trials as failed that ended without an error, and whose records the store has not got:
    the folder was moved, or something else deletes in it."""
    failed = {name for name, _ in outcome.failures}
    records = load_records(store, study.name, trials)
    for missing in missing_work(trials, records, study.stop, study.tolerance):
        if missing.trial not in failed:
            there = f"{missing.levels} of {missing.planned} levels"
            why = f"store: has records of {there}, though the trial ended; sweep again"
            outcome.failures.append((missing.trial, why))


def sweep_trainer(study: Study) -> Trainer:
    """The driver's trainer; its store is made where there is none, which workers never do."""
    store = absolute(study.store)
    open_store(store)
    return make_trainer(store)


def join(study: Study, setting: Setting, address: str | None, using: ExitStack) -> int:
    """Ray for a study, as long as ``using`` lasts; how many trials to ask of it at once.

    Raises:
        LaunchError: there is none, or not what the study asks for.
    """
    lanes = using.enter_context(joined(address, study.resources, setting.store))
    using.enter_context(ended_at_once())
    return lanes


def make_setting(study: Study, outcome: Outcome) -> Setting:
    """What the study's trials share; without tracking where the server does not answer."""
    publisher: Publisher | None = None
    if study.tracking.uri:
        try:
            publisher = open_publisher(study.tracking.uri, study.name, f"Study {study.name}")
        except TrackingError as error:
            if not study.tracking.uri.startswith("http"):
                raise
            outcome.notes.append(
                f"{error}; the sweep went on, `lth sync {study.name}` publishes it"
            )
    return Setting(
        study=study.name,
        study_digest=study.digest(),
        store=absolute(study.store),
        stop=study.stop,
        tolerance=study.tolerance,
        cpu=study.resources.cpu,
        checkpoint_every=60 * study.checkpoint_minutes,
        tracking=publisher,
    )


def _sweep(
    plan: Plan, missing: Sequence[Trial], setting: Setting, trainer: Trainer, console: Console,
    outcome: Outcome, lanes: int,
) -> None:  # fmt: skip
    from sweeps.run.progress import Standing
    from sweeps.run.queue import Piece, TrainOnce, try_store
    from sweeps.run.worker import trial_config

    shared, pieces = plan.shared(), list[Piece]()
    for trial in missing:
        jobs = [shared[job.digest] for job in trial.jobs() if job.digest in shared]
        pieces.append(Piece(trial_config(trial, jobs[0].keep if jobs else ()), jobs))
    order = TrainOnce(
        pieces, trainer.known, standing_of(trainer), try_store=partial(try_store, trainer.store)
    )
    done, levels = len(plan.trials) - len(missing), sum(t.spec.levels + 1 for t in missing)
    name, trials = plan.study.name, len(plan.trials)
    with Standing(name, trainer.store, console, trials, done, levels) as standing:
        fit(plan.study, setting, order, lanes)
    outcome.failures += standing.failed.items()


def _search(
    study: Study, setting: Setting, store: Store, console: Console, outcome: Outcome, lanes: int
) -> list[Trial]:  # fmt: skip
    """Run the samples that the study lacks; the trials of all that have a value."""
    from sweeps.run.progress import Standing
    from sweeps.run.search import (
        best,
        completed_samples,
        finished,
        open_study,
        sample_trials,
        searcher,
    )

    found = open_study(study)
    trials, done = study.search.trials, finished(found)
    levels = sum(spec_of(base_values(study), cell).levels + 1 for cell in cells(study))
    if left := max(0, trials - done):
        with Standing(study.name, store, console, trials, done, left * levels) as standing:
            while left and not standing.store_error:
                asked = min(left, of_a_tuner(lanes))
                tune_over(study, setting, searcher(study, found), lanes, asked, study)
                found, left = open_study(study), left - asked
        outcome.failures += standing.failed.items()
        if standing.store_error:
            raise StoreError(standing.store_error)
    outcome.notes += ["best: " + line for line in best(found, study)]
    return sample_trials(study, completed_samples(study) or ())


def fit(study: Study, setting: Setting, order: TrainOnce, lanes: int) -> None:
    """Tuner after Tuner over the pieces of an order, until there are no more.

    Raises:
        StoreError: the store fails, and does not get well.
    """
    for _ in order.rounds(of_a_tuner(lanes)):
        tune_over(study, setting, order, lanes)
    if order.store_error:
        raise StoreError(order.store_error)


def of_a_tuner(lanes: int) -> int:
    """Trials that one Tuner is given: it remembers each for good."""
    return max(LEAST_ROUND, ROUND_EACH * lanes)


def tune_over(
    study: Study, setting: Setting, search: Searcher, lanes: int, samples: int = -1,
    space: Study | None = None,
) -> None:  # fmt: skip
    """One Tuner over what a searcher suggests: trials, or samples of a study's space.

    Args:
        lanes: trials that are asked of the cluster at once.

    Raises:
        InterruptedSweepError: by Ctrl-C or SIGTERM.
    """
    from ray import tune

    from sweeps.run.progress import Tell, UntilTold
    from sweeps.run.queue import RETRIES
    from sweeps.run.worker import Worker

    # By default Tune asks a searcher for one trial at a time, and a lane whose worker takes longer
    # to start than a trial to run never comes up.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(lanes)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Tell says in a line why a trial failed: Ray need not, with all that it was called through.
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    scratch = Path(tempfile.mkdtemp(prefix="lth-tune-"))
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Worker, setting=setting, space=space),
            tune_resources(study.resources),
        ),
        tune_config=tune.TuneConfig(
            num_samples=samples, search_alg=search, reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=study.name, storage_path=str(scratch), verbose=0, callbacks=[Tell()],
            stop=UntilTold(),
            failure_config=tune.FailureConfig(max_failures=RETRIES if space else 0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )  # fmt: skip
    try:
        with ended_gently():
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def standing_of(trainer: Trainer) -> Callable[[Piece], object]:
    """How far the store has come with a piece: what is trained, and what is kept half way."""

    from sweeps.run.worker import config_trials

    def standing(piece: Piece) -> object:
        _, trials = config_trials(piece.config)
        jobs = [replace(job, keep=()) for trial in trials for job in trial.jobs()]
        return [trainer.known(job) or checkpoint_step(trainer.store, job) for job in jobs]

    return standing


def _missing(plan: Plan, trainer: Trainer) -> dict[str, Trial]:
    """Trials that have not reached their last level, or the one at which they stop, by id."""
    study, store = plan.study, trainer.store
    trained, begun = set(store.digests("trainings")), set(store.digests(TRIALS))

    def is_done(trial: Trial) -> bool:
        # One listing tells most of what is missing: the store is asked for the rest alone.
        if all(job.digest in trained for job in trial.jobs()) and is_stored(trial, trainer):
            return True
        records = (
            load_records(store, study.name, [trial])
            if record_key(study.name, trial) in begun
            else []
        )
        return bool(records) and why_stop(records, study.stop, study.tolerance) is not None

    done = side_by_side(is_done, plan.trials)
    return {trial.id: trial for trial, d in zip(plan.trials, done, strict=True) if not d}


def _tell(plan: Plan, missing: Mapping[str, Trial], setting: Setting, trainer: Trainer) -> None:
    """See that the study has records of the trials that were done before: they came from the store.

    Another study may have trained all of them. This trains nothing, on no cluster, and publishes
    nothing: the report brings what MLflow has not got.
    """
    untracked, study, store = replace(setting, tracking=None), plan.study, trainer.store

    def is_told(trial: Trial) -> bool:
        records = load_records(store, study.name, [trial])
        levels = {record["level"] for record in records}
        if len(levels) <= trial.spec.levels and not (
            records and why_stop(records, study.stop, study.tolerance)
        ):
            return False
        if not all(record["reused"] for record in records):
            said = [{**record, "reused": True} for record in records]
            save_records(store, study.name, setting.study_digest, trial, said)
        return True

    done = [trial for trial in plan.trials if trial.id not in missing]
    told = list(side_by_side(is_told, done))
    for trial in (trial for trial, t in zip(done, told, strict=True) if not t):
        for _ in run_trial(trial, untracked, trainer):
            pass


def check_data(plan: Plan) -> None:
    """Load each dataset once here: what is absent is said before Ray starts."""
    import torch

    for spec in dict.fromkeys(trial.spec.data for trial in plan.trials):
        data.load(spec, torch.device("cpu"))


def absolute(store: str) -> str:
    """A store's place wherever one is: a worker's folder is not the user's."""
    return store if "://" in store else str(Path(store).expanduser().absolute())
