"""Ray Tune backend: the only module that imports Ray Tune.

A `Searcher` hands Tune the items of a queue, a `Trainable` runs them on the workers, a `Callback`
records their progress.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from lth_core.errors import PreemptedError
from lth_core.redaction import without_secrets
from sweeps.clusters.capacity import tune_resources
from sweeps.run.progress import SweepProgress
from sweeps.run.queue import WorkQueue
from sweeps.run.signals import has_workers, is_interrupted, save_on_signal, save_workers
from sweeps.run.trial import SweepContext, drain_publishing, make_trainer, use_threads
from sweeps.run.worker import item_names, reports
from sweeps.studies.schema import Study
from sweeps.studies.user_modules import search_last

LEAST_ROUND, ROUND_EACH = 1000, 50
"""Number of items that one Tuner runs: at least, and for each concurrent trial."""

_observed: list[SweepProgress] = []
"""Progress of the running sweep. A global, because Tune pickles callbacks."""


class TuneBackend:
    """Backend that runs work on the workers of the Ray that this process has joined.

    Args:
        concurrency: number of trials to request from the cluster at once.
    """

    live = True

    def __init__(self, study: Study, context: SweepContext, concurrency: int) -> None:
        self._study, self._context, self.concurrency = study, context, concurrency

    def run(self, queue: WorkQueue, progress: SweepProgress) -> None:
        """Run a queue until it is exhausted.

        A new Tuner runs each round of items, because a Tuner keeps about 50 KB of memory a trial.

        Raises:
            InterruptedSweepError: on Ctrl-C or SIGTERM.
        """
        with _observing(progress):
            while queue.is_pending:
                self._tune(QueueSearcher(queue, self._round()), progress)

    def _round(self) -> int:
        return max(LEAST_ROUND, ROUND_EACH * self.concurrency)

    def _tune(self, searcher: Searcher, progress: SweepProgress) -> None:
        _configure_tune(self.concurrency)
        scratch = Path(tempfile.mkdtemp(prefix="lth-tune-"))
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(Worker, context=self._context),
                tune_resources(self._study.resources),
            ),
            tune_config=tune.TuneConfig(
                num_samples=-1, search_alg=searcher, reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=self._study.name, storage_path=str(scratch), verbose=0,
                callbacks=[ProgressCallback()], stop=StopOnSignal(),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )  # fmt: skip
        try:
            with save_on_signal(save_workers, lambda: progress.stopping(has_workers())):
                tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _configure_tune(concurrency: int) -> None:
    """Set Tune's environment variables and logging for a sweep."""
    # By default Tune requests one trial at a time. If trials are shorter than a worker's start, no
    # second worker would ever start.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrency)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # ProgressCallback records a trial's failure in a line; Ray would print the whole traceback.
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)


class Worker(tune.Trainable):  # type: ignore[misc]
    """Actor that runs trials, reused so that imports, data and connections are made once.

    On SIGTERM, which sweeps/clusters/leave.sh sends before a node leaves, it checkpoints the
    current training and exits; the trial resumes on another node. leave.sh and signals.py find
    its process by the name of this class.
    """

    def setup(self, config: dict[str, Any], context: SweepContext) -> None:
        self._context = context
        use_threads(context.cpu)
        if context.folder:
            search_last(context.folder)
        self._trainer = make_trainer(
            context.store, context.checkpoint_every, context.pack, context.compiled
        )
        self._reports: Iterator[dict[str, Any]] | None = None
        self._ray_handler = signal.signal(signal.SIGTERM, self._on_sigterm)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if self._trainer.ending.is_set():
            # If this returned False, Tune would drop the trial and not call the searcher.
            raise PreemptedError("received a signal to end")
        self._reports = reports(new_config, self._context, self._trainer)
        return True

    def step(self) -> dict[str, Any]:
        assert self._reports is not None
        report: dict[str, Any] = {"done": True}
        try:  # a step that raises is done as well: after it, SIGTERM may end the worker
            report = next(self._reports)
        finally:
            if report["done"]:
                self._reports = None
        return report

    def cleanup(self) -> None:
        drain_publishing(self._context)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._trainer.ending.set()
        if self._reports is None and callable(self._ray_handler):  # nothing to checkpoint
            self._ray_handler(number, frame)


class QueueSearcher(Searcher):  # type: ignore[misc]
    """Searcher that gives a Tuner the items of a queue, up to a number of items."""

    def __init__(self, queue: WorkQueue, items: int) -> None:
        super().__init__()
        self._queue, self._remaining = queue, items

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        item = self._queue.take(trial_id) if self._remaining else None
        if item:
            self._remaining -= 1
            return item.config
        is_finished = not self._remaining or self._queue.is_exhausted
        return str(Searcher.FINISHED) if is_finished else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        store_error = "" if error else (result or {}).get("store", "")
        self._queue.finish(trial_id, died=error, store_error=store_error)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a Tuner saves its searcher for a restart; a sweep resumes from the store

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a later sweep resumes from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class StopOnSignal(Stopper):  # type: ignore[misc]
    """Stopper that ends Tune's loop after a signal to this process."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return is_interrupted()


class ProgressCallback(Callback):  # type: ignore[misc]
    """Callback that records results and errors of Tune's trials in the sweep's progress."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for progress in _observed:
            progress.report(result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for progress in _observed:
            progress.ended(item_names(trial.config), trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for progress in _observed if not is_interrupted() else ():
            progress.died(item_names(trial.config), _reason(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        running = [trial for trial in trials if trial.status == "RUNNING"]
        for progress in _observed:
            progress.running(sum(len(item_names(trial.config)) for trial in running))


@contextmanager
def _observing(progress: SweepProgress) -> Iterator[None]:
    _observed.append(progress)
    try:
        yield
    finally:
        _observed.remove(progress)


def _reason(trial: Any) -> str:
    """Reason why a trial's worker ended. Ray's `get_error` reads a path that is written later."""
    try:
        text = Path(trial.error_file).read_text()
    except (OSError, TypeError):  # the trial has no folder
        return "its worker died"
    *_, last = text.split("Failure # ")
    if raised := re.findall(r"^[\w.]*(?:Error|Exception): .*", last, re.M):
        return without_secrets(raised[-1])
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes|$)", last, re.M)
    return f"its worker died: {detail[1]}" if detail else "its worker died"
