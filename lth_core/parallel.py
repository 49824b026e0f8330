"""Calls in threads: reads from a remote store mostly wait."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST_THREADS = 16
"""Largest number of threads of `map_in_threads`."""
MOST_AHEAD = 64
"""Largest number of calls that `map_in_threads` begins before their results are asked for."""

K = TypeVar("K")
T = TypeVar("T")


def map_in_threads(function: Callable[[K], T], items: Iterable[K]) -> Iterator[T]:
    """Results of a function for items, in their order; up to 16 calls run at a time.

    Results are as few in memory as 64, however slowly they are asked for.

    >>> list(map_in_threads(abs, [-3, 1]))
    [3, 1]
    """
    listed = list(items)
    if len(listed) < 2:  # one call needs no thread
        yield from map(function, listed)
        return
    with ThreadPoolExecutor(MOST_THREADS) as threads:
        calls = deque[Future[T]]()
        try:
            for item in listed:
                calls.append(threads.submit(function, item))
                if len(calls) > MOST_AHEAD:
                    yield calls.popleft().result()
            while calls:
                yield calls.popleft().result()
        finally:
            for call in calls:
                call.cancel()


def usable_cpus() -> int:
    """Number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
