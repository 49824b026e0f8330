"""Turns: what is compared runs in turns, so that other work on the machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each contender's turns, one a round, after a turn each that does not count.

    Args:
        clock: by default the CPU time of this process, which other processes hardly change.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def times_faster(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the rounds of the slow one's seconds divided by the fast one's.

    >>> times_faster([4.0, 6.0, 50.0], [2.0, 2.0, 10.0])
    3.0
    """
    return median(s / f for s, f in zip(slow, fast, strict=True))


def rate_text(rate: float) -> str:
    """A rate in three digits, or whole.

    >>> rate_text(10_973.2), rate_text(2.5862)
    ('10,973', '2.59')
    """
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
