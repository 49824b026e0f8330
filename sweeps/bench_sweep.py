"""A sweep's driver, watched from outside: what it holds as trials come to their end."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from lth_core.reading import read_entry
from lth_core.store import Store
from sweeps.status import KIND

EVERY = 1.0
"""Seconds from one look to the next."""
EARLY, LATE = (0.2, 0.4), (0.8, 1.0)
"""Shares of the trials, [from, to), in which the driver's memory is compared: before them it
imports and starts workers, after them it makes the report."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Trials that have ended, and the MiB that the driver holds then."""

    done: int
    mib: float


def watch(driver: subprocess.Popen[str], done: Callable[[], int]) -> list[Seen]:
    """Look at a process until it ends."""
    seen = list[Seen]()
    while driver.poll() is None:
        with suppress(OSError, TypeError):  # it has ended meanwhile
            seen.append(Seen(done(), resident(driver.pid)))
        time.sleep(EVERY)
    return seen


def resident(process: int) -> float:
    """MiB of memory that a process holds."""
    said = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(said[1]) / 1024  # type: ignore[index]  # a process that has ended has none


def trials_done(store: Store, study: str) -> int:
    """Trials of a sweep that have ended, as it says itself."""
    return read_entry(store, KIND, study, lambda entry: int(entry.meta["done"])) or 0


def growth(seen: Sequence[Seen], trials: int) -> float | None:
    """KiB that the driver grows by with each finished trial; None where too little was seen.

    >>> growth([Seen(2, 100), Seen(3, 101), Seen(8, 106), Seen(10, 300)], 10) / 1024
    1.0
    """
    (few, before), (many, after) = (_mean(seen, trials, share) for share in (EARLY, LATE))
    return 1024 * (after - before) / (many - few) if many > few else None


def _mean(seen: Sequence[Seen], trials: int, share: tuple[float, float]) -> tuple[float, float]:
    least, most = share
    within = [each for each in seen if least * trials <= each.done < most * trials]
    if not within:
        return float("nan"), float("nan")
    return fmean(each.done for each in within), fmean(each.mib for each in within)
