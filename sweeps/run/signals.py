"""Ctrl-C and SIGTERM: a sweep ends once its workers on this machine have kept what they train."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

LAST_SAVE = 10.0
"""Seconds that the workers have to keep what they train."""
AT_WORK = re.compile(rb"ray::(ResourceTrainable|Worker)\.train")
"""Ray's names of a trial's process that is at work; leave.sh knows them too."""

_told: list[int] = []
"""Signals that came while a Tuner ran. Tune pickles what it is given: none of that holds them."""


class InterruptedSweepError(KeyboardInterrupt):
    """The process was told to end, by a signal; its exit code says by which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


@contextmanager
def ended_at_once() -> Iterator[None]:
    """SIGTERM ends what is done meanwhile as Ctrl-C does. To be entered after Ray's start, which
    sees to SIGTERM in its own way.

    Raises:
        InterruptedSweepError: by either.
    """
    with _signals(_raise):
        yield


@contextmanager
def saved_on_signal(save: Callable[[], None]) -> Iterator[None]:
    """Run a backend; on a signal, the trainings are checkpointed, then the backend ends.

    A second signal ends it at once.

    Args:
        save: checkpoints the trainings, or has the workers do so.

    Raises:
        InterruptedSweepError: it was told to.
    """

    def tell(number: int, frame: FrameType | None) -> None:
        _told.append(number)
        if len(_told) > 1:
            _raise(number, frame)
        # Tune's loop waits for this, so it hands out nothing more meanwhile.
        save()

    _told.clear()
    with _signals(tell):
        yield
    if _told:
        raise InterruptedSweepError(_told[0])


def is_told_to_end() -> bool:
    """Whether the Tuner that runs is to end."""
    return bool(_told)


def let_workers_save(patience: float = LAST_SAVE) -> None:
    """Tell this process's own workers to keep what they train, as leave.sh does, and wait for it.

    A cluster's are not told: no signal reaches them from here.
    """
    until, told = time.monotonic() + patience, set[int]()
    while (found := _at_work()) and time.monotonic() < until:
        for process in found - told:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        told |= found
        time.sleep(0.05)


def _at_work() -> set[int]:
    """Processes that train whose raylet this process has started; none of a cluster's."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    ours = [process for process, by in parents.items() if parents.get(by) == os.getpid()]
    return {process for process in ours if AT_WORK.match(_command(process))}


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _raise(number: int, frame: FrameType | None) -> None:
    raise InterruptedSweepError(number)


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)
