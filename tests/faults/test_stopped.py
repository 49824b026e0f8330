"""Processes that stop for longer than their claim lasts (SIGSTOP), and then go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from in_process import start
from swept import STEPS, Swept, books, wait_for

from lth_core.store import open_store
from sweeps.store.integrity import find_faults

LEASE = 5.0
"""Seconds: a claim is renewed six times in it, so no busy machine lets one run out."""


@contextmanager
def stopped(swept: Swept, finished: int) -> Iterator[int]:
    """Stop the process that is in the middle of a training, for the duration."""
    with swept.held(finished) as process:
        os.kill(process, signal.SIGSTOP)
    try:
        yield process
    finally:
        os.kill(process, signal.SIGCONT)


def test_processes_that_stop_for_longer_than_a_lease_and_their_followers_make_one_result(
    undisturbed: Swept, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """One goes on while its follower is in the middle of the same training, the other when its
    follower has finished everything."""
    swept = study()
    processes = [start(swept, LEASE)]
    with stopped(swept, finished=0) as first:
        processes.append(start(swept, LEASE))
        wait_for(lambda: swept.worker(0, lambda each: each != first), lambda: "a follower")
    with stopped(swept, finished=5) as second:
        (other,) = (each for each in processes if each.pid != second)
        other.join()
        assert swept.finished() == 4 * 5
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0, 0]
    store = open_store(str(swept.store))
    assert [*find_faults(store)] == []
    assert store.digests("checkpoints") == [*store.files.files("claims")] == []
    assert books(undisturbed, swept).levels_again == 2, "both went on to the last step"
    unharmed("SIGSTOP for longer than a lease", swept, levels_again=2, steps_again=2 * STEPS)
