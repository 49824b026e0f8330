"""Serial backend: runs the items of a queue one by one in this process, without Ray.

For debugging: a `breakpoint()` in a user's network stops here. The records equal a Ray run's.
"""

from __future__ import annotations

import time
from bdb import BdbQuit
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from traceback import format_exception_only
from typing import Any

import torch

from lth_core.errors import PreemptedError
from lth_core.parallel import usable_cpus
from lth_core.redaction import without_secrets
from lth_core.store import existing_store
from lth_core.train import Trainer
from sweeps.clusters.capacity import check_fits
from sweeps.run.progress import SweepProgress
from sweeps.run.queue import WorkQueue
from sweeps.run.signals import is_interrupted, save_on_signal
from sweeps.run.trial import SweepContext, drain_publishing, use_threads
from sweeps.run.worker import MACHINE_ERRORS, RERAISED, item_names, reports
from sweeps.studies.schema import Study

RETRY_INTERVAL = 0.2
"""Seconds between two requests to the queue while the store fails."""


def start_threads(study: Study) -> None:
    """Start torch's threads for a study's trials in this process, before a plan's checks do.

    Threads flush denormals only if they are started flushing; see `flushed_denormals`.
    """
    use_threads(min(study.resources.cpu, usable_cpus()))


class SerialBackend:
    """Backend that runs work in the main thread of this process.

    Raises:
        LaunchError: this machine lacks a trial's resources.
    """

    concurrency = 1
    live = False  # a bar redraws from a thread, over a debugger's prompt

    def __init__(self, study: Study, context: SweepContext) -> None:
        machine = {"CPU": usable_cpus(), "GPU": torch.cuda.device_count()}
        check_fits(study.resources, [machine], "this machine")
        self._study, self._context = study, context
        use_threads(context.cpu)
        device = None if study.resources.gpu else "cpu"  # as Ray hides GPUs that were not requested
        # Not the cached trainer of this process, which an earlier signal may have stopped.
        self._trainer = Trainer(
            existing_store(context.store),
            device,
            checkpoint_every=context.checkpoint_every,
            pack=context.pack,
            compiled=context.compiled,
        )

    def run(self, queue: WorkQueue, progress: SweepProgress) -> None:
        """Run a queue until it is exhausted."""
        with self._drained(), save_on_signal(self._trainer.ending.set, progress.stopping):
            for key in map(str, count()):
                item = queue.take(key)
                if item is None:
                    if queue.is_exhausted or is_interrupted():
                        break
                    time.sleep(RETRY_INTERVAL)  # the store fails; here items wait for nothing else
                    continue
                report = self._run(item.config, progress)
                if is_interrupted():
                    break
                store_error = (report or {}).get("store", "")
                queue.finish(key, died=report is None, store_error=store_error)

    @contextmanager
    def _drained(self) -> Iterator[None]:
        """Publish what is queued at the end, after a signal too."""
        try:
            yield
        finally:
            drain_publishing(self._context)

    def _run(self, config: Mapping[str, Any], progress: SweepProgress) -> dict[str, Any] | None:
        """The last report of an item; None if it was interrupted, or the machine failed."""
        if is_interrupted():
            return None
        progress.running(len(item_names(config)))
        try:
            reraised = (*RERAISED, BdbQuit)
            for report in reports(config, self._context, self._trainer, reraised):
                progress.report(report)
                progress.running(len(item_names(config)))
                if report["done"]:
                    progress.ended(item_names(config), report)
                    return report
        except PreemptedError:
            pass
        except BdbQuit:  # `quit` of the debugger ends the sweep, as Ctrl-C does
            raise KeyboardInterrupt from None
        except MACHINE_ERRORS as error:
            line, *_ = "".join(format_exception_only(error)).splitlines()
            progress.died(item_names(config), without_secrets(line))
        return None
