"""Backends of a sweep: Ray Tune's workers, or this process."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Protocol

from lth_core.errors import SpecError
from sweeps.clusters.connect import check_server, joined
from sweeps.run.progress import SweepProgress
from sweeps.run.queue import WorkQueue
from sweeps.run.signals import raise_on_signal
from sweeps.run.trial import SweepContext
from sweeps.studies.schema import Study


class Backend(Protocol):
    """Runner of a queue's items.

    Raises:
        InterruptedSweepError: on Ctrl-C or SIGTERM.
    """

    concurrency: int
    """Number of items that run at once."""
    live: bool
    """Whether a progress bar may be drawn during a run."""

    def run(self, queue: WorkQueue, progress: SweepProgress) -> None:
        """Run a queue until it is exhausted."""


def check_backend(address: str | None, serial: bool) -> None:
    """Check the options of a backend, before MLflow and the store are opened.

    Raises:
        SpecError: the options contradict each other, or the address is malformed.
        LaunchError: no cluster answers at the address.
    """
    if serial and address is not None:
        raise SpecError("--serial", "runs in this process, so it takes no --address", address)
    if address is not None:
        check_server(address)


def open_backend(
    study: Study, context: SweepContext, address: str | None, serial: bool, stack: ExitStack
) -> Backend:
    """The backend of a sweep, open until ``stack`` closes.

    Args:
        address: address of a Ray cluster; None starts Ray on this machine.
        serial: run in this process, without Ray.

    Raises:
        LaunchError: the machine or cluster cannot be used, or lacks the study's resources.
    """
    if serial:
        from sweeps.run.serial import SerialBackend

        stack.enter_context(raise_on_signal())
        return SerialBackend(study, context)
    concurrency = stack.enter_context(joined(address, study.resources, context.store))
    stack.enter_context(raise_on_signal())
    from sweeps.run.tune import TuneBackend

    return TuneBackend(study, context, concurrency)
