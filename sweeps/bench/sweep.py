"""Benchmark of `lth sweep` in another process: time, the driver's memory, files in the store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from lth_core.errors import LaunchError
from lth_core.parallel import usable_cpus
from lth_core.store import Store, open_store
from lth_core.store.decode import read_entry
from lth_core.train.training import Training
from sweeps.bench.baselines import images
from sweeps.store.records import TRIALS
from sweeps.store.status import STATUS, status_key

OBSERVE_INTERVAL = 0.5
"""Seconds between two observations."""
EARLY, LATE = (0.2, 0.4), (0.8, 1.0)
"""Shares of the trials, [from, to), between which the driver's memory is compared. Before the first
the driver imports and starts workers; after the second it makes the report."""

SHORT: dict[str, Any] = {
    "name": "bench",
    "base": {
        "model": {"name": "mlp", "widths": [16]},
        "train": {"lr": 0.01, "steps": "1it", "evaluate_every": "1it"},
        "prune": {"fraction": 0.5},
        "levels": 0,
    },
    "tracking": {"uri": None},
}
"""Study of trials with one training of one step."""
SHORT_TRIALS = 2000
CPU_SECONDS, SHORT_KIB, FILES = 0.2, 100, 6
"""Limits for each trial: CPU seconds, growth of the driver in KiB, files in the store."""


@dataclass(frozen=True, slots=True)
class ShortBench:
    """Cost of a sweep, Ray's start and the report included, divided by its number of trials."""

    trials: int
    cpu_seconds: float
    """Duration of the sweep in seconds, times its CPUs, divided by the trials."""
    kib: float | None
    """Growth of the driver's memory in KiB; None if the sweep was too short to be observed."""
    files: float
    """Number of files in the store."""


@dataclass(frozen=True, slots=True)
class Observation:
    """State of a sweep at one moment."""

    done: int
    """Number of trials that have ended."""
    mib: float
    """Memory of the driver."""


def bench_short(trials: int = SHORT_TRIALS) -> ShortBench:
    """Sweep trials of one step.

    Raises:
        LaunchError: the sweep fails.
    """
    cpus = usable_cpus()
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        started = time.perf_counter()
        study, store = {**SHORT, "axes": {"seed": list(range(trials))}}, _store(folder)
        # The sweep itself saves its count only every few seconds.
        observations = sweep_watched(folder, study, lambda: len(store.digests(TRIALS)))
        wall = time.perf_counter() - started
        files = sum(1 for _ in store.files.files(""))
    kib = growth(observations, trials)
    return ShortBench(trials, wall * cpus / trials, kib, files / trials)


def sweep_cpu_seconds(folder: str, study: Mapping[str, Any]) -> float:
    """CPU seconds of a sweep of a study in a folder: of the driver, Ray and all workers.

    Raises:
        LaunchError: the sweep fails.
    """
    with _sweep(folder, study) as driver:
        tree = ProcessTree(driver.pid)
        while driver.poll() is None:
            tree.observe()
            time.sleep(OBSERVE_INTERVAL)
    return tree.cpu_seconds


def sweep_watched(
    folder: str, study: Mapping[str, Any], done: Callable[[], int] | None = None
) -> list[Observation]:
    """Sweep a study in a folder, in another process; returns the observations of that process.

    Args:
        done: gives the number of trials that have ended; by default from the saved status.

    Raises:
        LaunchError: the sweep fails.
    """
    store = _store(folder)
    with _sweep(folder, study) as driver:
        return watch(driver, done or (lambda: trials_done(store, study["name"])))


@contextmanager
def _sweep(folder: str, study: Mapping[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A sweep of a study, in another process and a folder.

    Raises:
        LaunchError: the sweep fails.
    """
    (Path(folder) / "bench.yaml").write_text(yaml.safe_dump(dict(study)))
    with lth(folder, "sweep", "bench.yaml") as driver:
        yield driver


def trainings(folder: str) -> list[Training]:
    """The trainings in the store of a sweep in a folder."""
    store = _store(folder)
    found = (
        read_entry(store, "trainings", digest, lambda entry: Training.from_json(entry.meta))
        for digest in store.digests("trainings")
    )
    return [training for training in found if training]


def _store(folder: str) -> Store:
    return open_store(f"{folder}/lth-store", make=False)


@contextmanager
def lth(folder: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `lth` in another process and a folder, with its output in the folder's file `out`.

    An exception in the block ends the process first.

    Raises:
        LaunchError: the command fails.
    """
    command = [sys.executable, "-m", "sweeps.cli", *arguments]
    # A relative path of the images would be another one in the folder.
    environment = {**os.environ, "LTH_DATA": str(images.folder())}
    printed, errors = Path(folder) / "out", Path(folder) / "err"
    with (
        printed.open("w") as out,
        errors.open("w") as err,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=err, text=True
        ) as process,
    ):
        try:
            yield process
            process.wait()
        finally:
            process.terminate()  # one that has ended is left alone
            process.wait()
    if process.returncode:
        reason = errors.read_text().strip()[-500:]
        raise LaunchError(f"bench: lth {' '.join(arguments)} failed: {reason}")


def watch(driver: subprocess.Popen[str], done: Callable[[], int]) -> list[Observation]:
    """Observations of a process until it ends."""
    observations = list[Observation]()
    while driver.poll() is None:
        with suppress(OSError, TypeError):  # the process has ended
            observations.append(Observation(done(), resident_mib(driver.pid)))
        time.sleep(OBSERVE_INTERVAL)
    return observations


class ProcessTree:
    """CPU time of a process and of all processes that it or they have started.

    A process is measured while it runs, so the time since its last observation is lost.

    Args:
        root: number of the process.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._seconds: dict[tuple[int, int], float] = {}
        """CPU seconds by number and start of a process: numbers are used again."""

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds, user and system, up to the last observation."""
        return sum(self._seconds.values())

    def observe(self) -> None:
        """Read the times of all processes that run now."""
        children: dict[int, list[int]] = defaultdict(list)
        read: dict[int, tuple[int, float]] = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):  # the process has ended
                # The name, which stands in brackets, may contain spaces.
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                process, parent = int(name), int(fields[1])
                children[parent].append(process)
                ticks = int(fields[11]) + int(fields[12])
                read[process] = int(fields[19]), ticks / os.sysconf("SC_CLK_TCK")
        tree = [self._root]
        for process in tree:  # grows while it is read
            tree += children[process]
            if process in read:
                start, seconds = read[process]
                self._seconds[process, start] = seconds


def resident_mib(process: int) -> float:
    """Resident memory of a process in MiB."""
    line = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(line[1]) / 1024  # type: ignore[index]  # None if the process has ended


def trials_done(store: Store, study: str) -> int:
    """Number of trials that have ended, from a sweep's saved status."""
    return read_entry(store, STATUS, status_key(study), lambda entry: int(entry.meta["done"])) or 0


def growth(observations: Sequence[Observation], trials: int) -> float | None:
    """Growth of the driver in KiB with each finished trial; None for too few observations.

    >>> steady = [Observation(2, 100), Observation(3, 101), Observation(8, 106)]
    >>> growth([*steady, Observation(10, 300)], 10) / 1024
    1.0
    """
    (few, before), (many, after) = (_mean(observations, trials, part) for part in (EARLY, LATE))
    return 1024 * (after - before) / (many - few) if many > few else None


def _mean(
    observations: Sequence[Observation], trials: int, part: tuple[float, float]
) -> tuple[float, float]:
    """Mean number of ended trials and mean MiB, over the observations of a part of the sweep."""
    start, end = part
    within = [each for each in observations if start * trials <= each.done < end * trials]
    if not within:
        return float("nan"), float("nan")
    return fmean(each.done for each in within), fmean(each.mib for each in within)
