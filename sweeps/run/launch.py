"""Launch of a sweep: run the missing trials on a backend, then check that every trial has records.

A resumed sweep makes the same calls as a new one: the store, not a snapshot of Tune's, decides
which trials are missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean

from rich.console import Console

from lth_core import data
from lth_core.columns import Record
from lth_core.errors import LaunchError, StoreError, TrackingError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.parallel import map_in_threads
from lth_core.spec import PruneDuring, TicketSpec
from lth_core.store import Store, open_store
from lth_core.train import Trainer
from lth_core.train.checkpoint import checkpoint_step
from sweeps.phases import phase
from sweeps.plan.estimate import LevelSeconds
from sweeps.plan.packs import packs_of
from sweeps.plan.plan import Plan, Trial, is_stored
from sweeps.plan.recorded import read_trial
from sweeps.plan.stopping import has_stopped
from sweeps.report.completeness import missing_work
from sweeps.run.backend import Backend, check_backend, open_backend
from sweeps.run.progress import SweepProgress
from sweeps.run.queue import WorkItem, WorkQueue
from sweeps.run.search import Samples, samples_left
from sweeps.run.store_health import StoreHealth, probe
from sweeps.run.trial import SweepContext, make_trainer, run_trial
from sweeps.run.worker import config_trials, item_config, reports
from sweeps.store.latencies import measure_latencies
from sweeps.store.published import publish_failures, study_publisher
from sweeps.store.records import (
    TRIALS,
    load_records,
    record_key,
    register,
    save_records,
    with_axis_values,
)
from sweeps.store.samples import completed_samples, sample_trials
from sweeps.store.status import is_finished, is_running
from sweeps.studies.axes import combinations
from sweeps.studies.find import save_swept
from sweeps.studies.schema import Study
from tracking.publish.publisher import Publisher, Status
from tracking.publish.runs import DeletedExperimentError

logger = logging.getLogger("lth")


@dataclass
class SweepOutcome:
    """Outcome of a sweep: failed work as (name, reason), and notes for the user."""

    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    """Seconds from the first training to the last; 0 where nothing was trained."""
    notes: list[str] = field(default_factory=list)


def launch(
    plan: Plan, console: Console, address: str | None, stack: ExitStack, serial: bool = False,
    verbose: bool = False,
) -> SweepOutcome:  # fmt: skip
    """Run the missing trials of a study.

    Args:
        address: address of a Ray cluster; None: this machine.
        stack: stack that shuts Ray down when it closes. Ray 2.60 may crash a process some seconds
            after its shutdown, so close the stack last.
        serial: run in this process, without Ray.
        verbose: print a line for each level.

    Raises:
        LthError: bad input, before any training.
        InterruptedSweepError: on Ctrl-C or SIGTERM.
    """
    check_backend(address, serial)
    if address is None:
        with phase(console, "loading data", not serial):
            check_data(plan)
    study, outcome = plan.study, SweepOutcome()
    trainer = sweep_trainer(study)
    register(trainer.store, study)  # a store that cannot be written fails here, before Ray starts
    adaptive = study.search.algorithm == "optuna"
    if adaptive and is_running(trainer.store, study.name):
        raise LaunchError(
            f"another sweep of {study.name} is running, as `lth status {study.name}` shows; wait "
            "for it, because both would write to one journal of samples"
        )
    trained = set[str]() if adaptive else set(trainer.store.digests("trainings"))
    missing = {} if adaptive else _missing(plan, trainer, trained)
    left = samples_left(study) if adaptive else len(missing)
    context, backend = make_context(study), None
    trials: Sequence[Trial] = plan.trials
    with running(context if left else None, outcome, plan.trials):
        if left:
            with nullcontext() if serial else phase(console, "starting Ray"):
                backend = open_backend(study, context, address, serial, stack)
        save_swept(study)  # after the backend is open: a refused study is not the last swept one
        if backend and adaptive:
            _search(plan, left, backend, trainer, console, outcome, verbose)
        elif backend:
            level_seconds = LevelSeconds(trainer.store, study.resources, trained)
            _sweep(
                plan, list(missing.values()), level_seconds, backend, trainer, console, outcome,
                verbose,
            )  # fmt: skip
        elif not adaptive and not is_finished(trainer.store, study):  # another sweep trained all
            trials_done = len(plan.trials)
            with SweepProgress(study, trainer.store, console, trials_done, trials_done, 0):
                pass
    if adaptive:
        trials = sample_trials(study, completed_samples(study) or ())
        restore_records(trials, context, trainer, outcome)
    else:
        _reuse_records(plan, missing, context, trainer)
    check_records(study, trials, trainer.store, outcome)
    outcome.notes += measure_latencies(study, trials, trainer.store, console)
    return outcome


def restore_records(
    trials: Sequence[Trial], context: SweepContext, trainer: Trainer, outcome: SweepOutcome
) -> None:
    """Store again the records of trials that have ended, where the store has lost them.

    A search does not run such a trial again. Nothing is trained: a trial whose trainings are lost
    too is a failure.
    """
    records = load_records(trainer.store, context.study, trials)
    lost = {work.trial for work in missing_work(trials, records, context.stop, context.margin)}
    work = item_config([(trial, ()) for trial in trials if trial.id in lost])
    untracked, frozen = replace(context, tracking=None), Trainer(trainer.store, frozen=True)
    for report in reports(work, untracked, frozen, reraised=()):
        outcome.failures += report.get("failed", [])


def check_records(
    study: Study, trials: Sequence[Trial], store: Store, outcome: SweepOutcome
) -> None:
    """Add a failure for each trial that ended without an error but lacks records in the store.

    Records are lost where the store's folder was moved, or another program deletes its files.
    """
    failed = {name for name, _ in outcome.failures}
    records = load_records(store, study.name, trials)
    for missing in missing_work(trials, records, study.stop, study.verdict.margin):
        if missing.trial not in failed:
            levels = f"{missing.levels} of {missing.planned} levels"
            reason = f"store: has records of {levels}, though the trial ended; sweep again"
            outcome.failures.append((missing.trial, reason))


def sweep_trainer(study: Study) -> Trainer:
    """The driver's trainer; makes the store if it is absent, which workers never do."""
    store = absolute(study.store)
    open_store(store)
    return make_trainer(store, pack=study.resources.pack)


def make_context(study: Study) -> SweepContext:
    """Context that all trials share; without tracking, and with a warning, if the server does not
    answer."""
    publisher: Publisher | None = None
    if study.tracking.uri:
        try:
            publisher = study_publisher(study)
        except DeletedExperimentError:
            raise
        except TrackingError as error:
            if not study.tracking.uri.startswith("http"):
                raise
            later = f"its report, or `lth sync {study.name}`, publishes the results"
            logger.warning("%s; the sweep runs without it, and %s", error, later)
    return SweepContext(
        study=study.name,
        study_digest=study.digest(),
        store=absolute(study.store),
        stop=study.stop,
        margin=study.verdict.margin,
        cpu=study.resources.cpu,
        checkpoint_every=60 * study.checkpoint_minutes,
        pack=study.resources.pack,
        compiled=study.resources.compile,
        tracking=publisher,
        folder=str(Path.cwd()),
    )


@contextmanager
def running(
    context: SweepContext | None, outcome: SweepOutcome, trials: Sequence[Trial] = ()
) -> Iterator[None]:
    """While trials run, the study's run in MLflow is RUNNING; afterwards no run is.

    Probes leave the study's run as the last sweep left it.

    Args:
        context: the sweep's; None: no trials run.
        trials: trials whose runs show the outcome's failures afterwards.
    """
    if context is None or context.tracking is None:
        yield
        return
    publisher = context.tracking
    status: Status = "KILLED"
    if not context.probes:
        with suppress(TrackingError):
            publisher.resume()
    try:
        yield
        status = "FAILED" if outcome.failures else "FINISHED"
    finally:
        with suppress(TrackingError):
            publish_failures(publisher, trials, dict(outcome.failures))
        with suppress(TrackingError):  # `lth sync` sets what is missing
            publisher.end_running(status)


def _sweep(
    plan: Plan, missing: Sequence[Trial], level_seconds: LevelSeconds, backend: Backend,
    trainer: Trainer, console: Console, outcome: SweepOutcome, verbose: bool,
) -> None:  # fmt: skip
    shared, items = plan.shared(), list[tuple[float, WorkItem]]()
    expected = dict[str, list[float]]()
    with phase(console, "choosing the size of packs", backend.live):
        for pack in packs_of(missing, plan.study.resources, trainer, backend.concurrency):
            needed, work = dict[str, Job](), list[tuple[Trial, Sequence[int]]]()
            for trial in pack:
                planned = list(levels(trial.spec))
                expected[trial.id] = level_seconds.of(trial.spec, planned)
                digests = [job.digest for branches in planned for job in branches.values()]
                jobs = [shared[digest] for digest in digests if digest in shared]
                needed |= {job.digest: job for job in jobs}
                work.append((trial, jobs[0].keep if jobs else ()))
            seconds = sum(sum(expected[trial.id]) for trial in pack)
            items.append((seconds, WorkItem(item_config(work), list(needed.values()))))
    # The longest first: one that began late would run on while other workers are idle.
    items.sort(key=lambda item: item[0], reverse=True)
    queue = open_queue([item for _, item in items], trainer)
    done, to_run = len(plan.trials) - len(missing), sum(map(len, expected.values()))
    progress = SweepProgress(
        plan.study, trainer.store, console, len(plan.trials), done, to_run, expected,
        live=backend.live, verbose=verbose,
    )  # fmt: skip
    with progress:
        run_queue(backend, queue, progress)
    outcome.seconds = progress.seconds
    outcome.failures += progress.failed.items()


def _search(
    plan: Plan, left: int, backend: Backend, trainer: Trainer, console: Console,
    outcome: SweepOutcome, verbose: bool,
) -> None:  # fmt: skip
    """Run some further samples of a study."""
    study, each = plan.study, len(combinations(plan.study))
    planned = each * fmean(trial.spec.levels + 1 for trial in plan.trials)
    samples = Samples(study, trainer.store, left, planned)

    def following(ended: WorkItem) -> list[WorkItem]:
        items = samples.following(ended)
        progress.expect(samples.levels)
        return items

    queue = open_queue(list(samples.items(backend.concurrency)), trainer, following)
    trials, live = study.search.trials * each, backend.live
    progress = SweepProgress(
        study, trainer.store, console, trials, trials - left * each, samples.levels, live=live,
        verbose=verbose,
    )  # fmt: skip
    with progress:
        run_queue(backend, queue, progress)
    outcome.seconds = progress.seconds
    outcome.failures += [*samples.failures, *samples.named(progress.failed)]


def open_queue(
    items: Iterable[WorkItem],
    trainer: Trainer,
    following: Callable[[WorkItem], Iterable[WorkItem]] = lambda item: (),
) -> WorkQueue:
    """A queue over the trainer's store."""
    health = StoreHealth(partial(probe, trainer.store))
    return WorkQueue(items, trainer.known, progress_of(trainer), following, health)


def run_queue(backend: Backend, queue: WorkQueue, progress: SweepProgress) -> None:
    """Run a queue until it is exhausted.

    Raises:
        StoreError: the store failed for too long.
    """
    backend.run(queue, progress)
    if queue.store_error:
        raise StoreError(queue.store_error)


def progress_of(trainer: Trainer) -> Callable[[WorkItem], object]:
    """Function that gives, for each training of an item, True if it is stored, else its step."""

    def progress(item: WorkItem) -> object:
        work = config_trials(item.config)
        jobs = [replace(job, keep=()) for trial, _ in work for job in trial.jobs()]
        return [trainer.known(job) or checkpoint_step(trainer.store, job) for job in jobs]

    return progress


def _missing(plan: Plan, trainer: Trainer, trained: Collection[str]) -> dict[str, Trial]:
    """Trials that have not reached their last level, or the one at which they stop, by id.

    Args:
        trained: digests of the stored trainings.
    """
    study, store = plan.study, trainer.store
    started = set(store.digests(TRIALS))

    def is_done(trial: Trial) -> bool:
        # One listing finds most missing trainings; only the others are checked one by one.
        if all(job.digest in trained for job in trial.jobs()) and is_stored(trial, trainer):
            return True
        records = (
            load_records(store, study.name, [trial])
            if record_key(study.name, trial) in started
            else []
        )
        return has_stopped(records, study.stop, study.verdict.margin)

    pairs = zip(plan.trials, map_in_threads(is_done, plan.trials), strict=True)
    return {trial.id: trial for trial, done in pairs if not done}


def _reuse_records(
    plan: Plan, missing: Mapping[str, Trial], context: SweepContext, trainer: Trainer
) -> None:
    """Store records, marked as reused, of trials whose trainings were all in the store before.

    Another study may have run these trainings. Nothing is trained here, and nothing published:
    the report publishes the levels that MLflow lacks. Records of the study before it was extended
    become those of the extended one: verdicts are given on trials of one study digest.
    """
    untracked, study, store = replace(context, tracking=None), plan.study, trainer.store

    def is_recorded(trial: Trial) -> bool:
        content = read_trial(store, record_key(study.name, trial))
        records = [with_axis_values(row, trial) for row in content["records"]] if content else []
        levels = {record["level"] for record in records}
        stopped = has_stopped(records, study.stop, study.verdict.margin)
        if content is None or (len(levels) <= trial.spec.levels and not stopped):
            return False
        if any(_is_too_early(record, trial.spec) for record in records):
            return False
        is_current = content["study_digest"] == context.study_digest
        if not is_current or not all(record["reused"] for record in records):
            reused = [{**record, "reused": True} for record in records]
            save_records(store, study.name, context.study_digest, trial, reused)
        return True

    done = [trial for trial in plan.trials if trial.id not in missing]
    pairs = list(zip(done, map_in_threads(is_recorded, done), strict=True))
    for trial in (trial for trial, recorded in pairs if not recorded):
        for _ in run_trial(trial, untracked, trainer):
            pass


def _is_too_early(record: Record, spec: TicketSpec) -> bool:
    """Whether a record's early stop has more weights than the record, as in older versions."""
    step, prune = record["early_stop_step"], spec.prune
    if not isinstance(prune, PruneDuring) or record["branch"] != "ticket" or step is None:
        return False
    return bool(step < prune.final_density_from)


def check_data(plan: Plan) -> None:
    """Load each dataset once, so that an absent one is reported before Ray starts."""
    import torch

    for spec in dict.fromkeys(trial.spec.data for trial in plan.trials):
        data.load(spec, torch.device("cpu"))


def absolute(store: str) -> str:
    """Absolute address of a store: a worker's current folder is not the user's."""
    return store if "://" in store else str(Path(store).expanduser().absolute())
