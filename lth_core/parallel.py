"""Reading from a remote store in threads: what takes time there is waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AT_ONCE = 16
"""Threads of a call."""

K = TypeVar("K")
T = TypeVar("T")


def map_in_threads(function: Callable[[K], T], items: Iterable[K]) -> Iterator[T]:
    """A function's results for the items, in their order; 16 calls run at a time.

    >>> list(map_in_threads(abs, [-3, 1]))
    [3, 1]
    """
    every = list(items)
    if len(every) < 2:  # one needs no thread
        yield from map(function, every)
        return
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(function, every)
