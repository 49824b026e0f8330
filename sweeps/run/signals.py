"""Ctrl-C, SIGTERM, SIGHUP: a sweep ends after this machine's workers have stored checkpoints."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
SAVE_TIMEOUT = 60.0
"""Seconds that workers have to store their checkpoints: a pack stores one for each member, on a
disk that other work may slow down. A second Ctrl-C ends the wait."""
TRIAL_PROCESS = re.compile(rb"ray::(ResourceTrainable|Worker)\.train")
"""Ray's names of a process that runs a trial; leave.sh has them too."""

_signals_received: list[int] = []
"""Signals received while a backend runs. A global, because Tune pickles its arguments."""


class InterruptedSweepError(KeyboardInterrupt):
    """A signal ended the process; the exit code names the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


@contextmanager
def raise_on_signal() -> Iterator[None]:
    """Raise on SIGTERM as on Ctrl-C. Enter it after Ray's start, which sets Ray's own handler.

    Raises:
        InterruptedSweepError: on either signal.
    """
    with _handled_by(_raise):
        yield


@contextmanager
def save_on_signal(
    save: Callable[[], None], announce: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Checkpoint the trainings on a signal, and end the sweep when its body has ended.

    A second signal ends it at once.

    Args:
        save: function that checkpoints the trainings, here or on the workers.
        announce: function that tells the user so, before the trainings have done it.

    Raises:
        InterruptedSweepError: after a signal.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        _signals_received.append(number)
        if len(_signals_received) > 1:
            _raise(number, frame)
        announce()
        # Tune's loop waits for this handler, so no further trial starts.
        save()

    _signals_received.clear()
    with _handled_by(stop):
        yield
    if _signals_received:
        raise InterruptedSweepError(_signals_received[0])


def is_interrupted() -> bool:
    """Whether the running backend has received a signal to end."""
    return bool(_signals_received)


def save_workers(timeout: float = SAVE_TIMEOUT) -> None:
    """Send SIGTERM to this process's own workers, as leave.sh does, and wait for their checkpoints.

    Workers on other machines continue: no signal reaches them from here.
    """
    deadline, signalled = time.monotonic() + timeout, set[int]()
    while (workers := _trial_processes()) and time.monotonic() < deadline:
        for process in workers - signalled:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        signalled |= workers
        time.sleep(0.05)


def has_workers() -> bool:
    """Whether `save_workers` finds a worker; those of a cluster have other parents."""
    return bool(_trial_processes())


def _trial_processes() -> set[int]:
    """Processes that run a trial under a raylet that this process has started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    own = [process for process, parent in parents.items() if parents.get(parent) == os.getpid()]
    return {process for process in own if TRIAL_PROCESS.match(_command(process))}


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _raise(number: int, frame: FrameType | None) -> None:
    raise InterruptedSweepError(number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if current_thread() is not main_thread():  # Python lets no other thread handle signals
        yield
        return
    # SIGHUP comes when a terminal is closed; `nohup` ignores it.
    ignores = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [n for n in SIGNALS if not (ignores and n == signal.SIGHUP)]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
