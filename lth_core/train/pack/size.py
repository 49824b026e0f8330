"""Number of jobs in a pack, by a measurement of this device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from lth_core.jobs.recipes import Job
from lth_core.models.latency import device_name
from lth_core.spec import sha256
from lth_core.store import Entry, Store
from lth_core.store.decode import check, read_entry
from lth_core.train.layers.chain import is_linear_chain
from lth_core.train.loop import Run, Task
from lth_core.train.pack.forward import Way, ways_of
from lth_core.train.pack.pack import step_of
from lth_core.train.pack.rules import pack_key
from lth_core.train.precision import arithmetic, flushed_denormals, threads_for
from lth_core.train.probe import WARM_UP
from lth_core.train.timings import speed_key

KIND = "packs"
"""Kind of store entry."""

SIZES = (1, 2, 4, 8, 16, 32)
"""Sizes of packs that are measured."""
COMPARED = 4
"""Size at which ways to compute a pack are compared."""
TIMED_STEPS, PROBE_SECONDS = 10, 0.05
"""Number of steps that are timed together, and seconds for which a size is timed."""
LEAST_STEPS = 5000
"""Least number of steps to be trained for which a measurement is made."""
SLOWER = 0.9
"""Ratio of a size's speed to the best, below which no larger size is measured.

Two sizes in succession that are slower at all have the same effect; other work on the machine may
slow a single one."""
LEAST_GAIN = 1.2
"""Least ratio of a pack's speed to that of jobs trained alone."""
MOST_PARAMETERS = 200_000
"""Largest network that is measured on a CPU, where larger ones gain nothing."""
MOST_MEMORY = 0.8
"""Largest share of a GPU's memory that a pack may take."""


@dataclass(frozen=True)
class PackSpeeds:
    """Speeds of packs of one kind of job on one device."""

    way: Way
    """The fastest way to compute a pack."""
    steps_per_second: Mapping[int, float]
    """Summed over a pack's jobs, by its size, from 1 on."""

    @property
    def fastest(self) -> int:
        """The size with the highest speed; 1 where packs gain too little.

        >>> PackSpeeds(Way.STACKED, {1: 100.0, 2: 150.0, 4: 140.0}).fastest
        2
        >>> PackSpeeds(Way.STACKED, {1: 100.0, 2: 110.0}).fastest
        1
        """
        speeds = self.steps_per_second
        size = max(speeds, key=lambda size: speeds[size])
        return size if speeds[size] >= LEAST_GAIN * speeds[1] else 1


class PackSizes:
    """Sizes of packs on a device, measured once for each kind of job and stored.

    Args:
        make: makes a new task of a job.
        alone: gives a new task the layers that it has where it is trained alone, in place.
    """

    def __init__(
        self,
        store: Store,
        device: torch.device,
        make: Callable[[Job], Task],
        alone: Callable[[Task], Task],
    ) -> None:
        self._store, self._device, self._make, self._alone = store, device, make, alone
        self._known: dict[str, PackSpeeds | None] = {}
        """Speeds by key; None where the store had none."""

    def may_gain(self, jobs: Sequence[Job]) -> bool:
        """Whether packs of jobs of one kind gain, or are worth a measurement."""
        speeds = self._stored(pack_speeds_key(jobs[0], self._device))
        return speeds.fastest > 1 if speeds else steps_of(jobs) >= LEAST_STEPS

    def fastest(self, job: Job, steps: int) -> int:
        """The fastest size of packs of a job's kind; 1 where it is not known.

        Args:
            steps: number of steps to be trained; few are not worth a measurement.
        """
        speeds = self._speeds(job, steps)
        return speeds.fastest if speeds else 1

    def gain(self, job: Job, steps: int, most: int) -> float:
        """Speed of jobs of a kind in packs, as a ratio to that of jobs trained alone; at least 1.

        Args:
            steps: as for `fastest`.
            most: largest number of jobs that can be trained at once, at least 1.
        """
        speeds = self._speeds(job, steps) if most > 1 and pack_key(job) else None
        if speeds is None or speeds.fastest == 1:
            return 1.0
        sizes, rates = zip(*sorted(speeds.steps_per_second.items()), strict=True)
        return float(
            np.interp(min(most, speeds.fastest), sizes, rates) / speeds.steps_per_second[1]
        )

    def way(self, job: Job, tasks: Sequence[Task]) -> Way:
        """The fastest way to compute a pack of tasks of a job's kind."""
        ways = ways_of(tasks[0].model, self._device)
        steps = sum(task.last - task.first for task in tasks)
        speeds = self._speeds(job, steps) if len(ways) > 1 else None
        return speeds.way if speeds else ways[0]

    def _speeds(self, job: Job, steps: int) -> PackSpeeds | None:
        key = pack_speeds_key(job, self._device)
        if self._stored(key) is None and steps >= LEAST_STEPS:
            del self._known[key]  # another process may have measured them
            if self._stored(key) is None:
                speeds = self._known[key] = self._measured(lambda: self._make(job))
                counts = {str(size): speed for size, speed in speeds.steps_per_second.items()}
                self._store.put(KIND, key, {"way": speeds.way.value, "steps_per_second": counts})
        return self._known[key]

    def _stored(self, key: str) -> PackSpeeds | None:
        if key not in self._known:
            self._known[key] = read_entry(self._store, KIND, key, _speeds_of)
        return self._known[key]

    def _measured(self, make: Callable[[], Task]) -> PackSpeeds:
        task = make()
        model = task.model
        small = sum(p.numel() for p in model.parameters()) <= MOST_PARAMETERS
        if self._device.type == "cpu" and not (small and is_linear_chain(model)):
            return PackSpeeds(ways_of(model, self._device)[0], {1: 1.0})
        with threads_for(model, task.data.shape, task.spec.batch_size):
            return measure(make, self._device, self._alone)


def measure(
    make: Callable[[], Task],
    device: torch.device,
    alone: Callable[[Task], Task] = lambda task: task,
) -> PackSpeeds:
    """Speeds of packs of each size, until larger ones are slower.

    Args:
        make: makes a new task, all of one job.
        alone: as in `PackSizes`.
    """
    tasks = [make()]
    way, *others = ways_of(tasks[0].model, device)

    def speed(size: int, way: Way) -> float | None:
        if size == 1:
            return _speed([alone(make())], way, device)
        tasks.extend(make() for _ in range(size - len(tasks)))
        return _speed(tasks[:size], way, device)

    if others:
        way = max((way, *others), key=lambda way: speed(COMPARED, way) or 0.0)
    speeds: dict[int, float] = {}
    for size in SIZES:
        measured = speed(size, way)
        if measured is None:
            break
        speeds[size] = measured
        if past_the_best(list(speeds.values())):
            break
    return PackSpeeds(way, speeds or {1: 1.0})


def past_the_best(speeds: Sequence[float]) -> bool:
    """Whether a larger pack would be slower, from the speeds of the smaller ones, by size.

    >>> past_the_best([3579.0, 3503.0]), past_the_best([3579.0, 3503.0, 3400.0])
    (False, True)
    >>> past_the_best([4357.0, 2848.0])
    True
    """
    best = max(speeds)
    return speeds[-1] < SLOWER * best or (len(speeds) > 2 and max(speeds[-2:]) < best)


def _speed(tasks: Sequence[Task], way: Way, device: torch.device) -> float | None:
    """Steps a second of a pack; None if its network cannot be stacked, or memory is short."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # so that the memory in use after it is that of this pack
    try:
        with arithmetic(tasks[0].spec.precision, device), flushed_denormals():
            seconds = min(_step_seconds(tasks, way, device), default=None)
    except RuntimeError:  # also torch.OutOfMemoryError
        return None
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        if total - free > MOST_MEMORY * total:
            return None
    return len(tasks) / seconds if seconds else None


def _step_seconds(tasks: Sequence[Task], way: Way, device: torch.device) -> Iterator[float]:
    """Mean seconds of a pack's step over some steps, several times: other work on the machine makes
    some of them too long, and none too short.

    Where one thread of a CPU computes the step, they are its CPU seconds."""
    one_thread = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if one_thread else time.perf_counter
    train, batches = step_of([Run(task) for task in tasks], way)
    for batch in islice(batches, WARM_UP):
        train(*batch)
    begun = time.perf_counter()
    while len(timed := list(islice(batches, TIMED_STEPS))) == TIMED_STEPS:
        _wait(device)
        started = clock()
        for batch in timed:
            train(*batch)
        _wait(device)
        yield (clock() - started) / TIMED_STEPS
        if time.perf_counter() - begun > PROBE_SECONDS:
            return


def steps_of(jobs: Iterable[Job]) -> int:
    """Number of steps of jobs, summed."""
    return sum(job.last - job.first for job in jobs)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pack_speeds_key(job: Job, device: torch.device) -> str:
    """sha256 of what the speeds of packs depend on: the job's kind, the device and torch."""
    return sha256([speed_key(job, device), device_name(device), torch.__version__])


def _speeds_of(entry: Entry) -> PackSpeeds:
    check(speeds := entry.meta["steps_per_second"], dict[str, float])
    if "1" not in speeds:
        raise ValueError("steps_per_second must have an entry of size 1")
    counts = {int(size): speed for size, speed in speeds.items()}
    return PackSpeeds(Way(entry.meta["way"]), counts)
