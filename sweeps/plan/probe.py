"""Seconds per step of networks that were never trained here: measured, or a range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, prod
from threading import Event, Thread

import torch

from lth_core import data
from lth_core.errors import LthError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.models import template
from lth_core.models.latency import torch_threads
from lth_core.models.positions import shapes_and_positions
from lth_core.parallel import usable_cpus
from lth_core.spec import TicketSpec
from lth_core.store import Store
from lth_core.train import Trainer
from lth_core.train.timings import TRAINING_PASSES, SpeedFactors, passes_per_step, speed_key
from sweeps.studies.schema import Resources

PROBE_SECONDS = 3.0
"""Seconds that all measurements of a plan take, without loading data; 0: none is made."""
MOST_PROBED = 4
"""Largest number of speeds that are measured."""
MOST_SPECS = 200
"""Largest number of specs that are searched for trainings of unknown speed."""
BUSY_SIZE = 256
"""Rows and columns of the matrices that keep other cores busy."""
RATES = {"cpu": (4e9, 1e11), "cuda": (2e11, 2e13)}
"""Multiply-adds per second, lowest and highest, by kind of device (docs/performance.md)."""
OVERHEADS = {"cpu": (1e-4, 1e-3), "cuda": (3e-5, 2e-3)}
"""Seconds of a step without arithmetic, lowest and highest, by kind of device."""


def probe_speeds(
    specs: Iterable[TicketSpec], unknown: Mapping[SpeedFactors, int], resources: Resources,
    at_once: int,
) -> dict[str, float]:  # fmt: skip
    """Measured seconds per step, by `speed_key`, of trainings whose speed is not known.

    A step of a training in a pack takes its share of the pack's step. Trainings from trained
    weights, or on data that are not here, are left out. So are networks of a user's own: whatever
    ends or stops their process must not end or stop this one.

    Args:
        unknown: numbers of steps of these trainings.
        at_once: number of concurrent trials; the other cores are kept as busy as they would.
    """
    device = "cuda" if resources.gpu else "cpu"
    steps = Counter[str]()
    for factors, count in unknown.items():
        if ":" not in factors.model.name:
            steps[speed_key(factors, device)] += count
    wanted = list(steps)[:MOST_PROBED]
    here = device == "cpu" or torch.cuda.is_available()
    if not PROBE_SECONDS or not wanted or not here:
        return {}
    trainer = Trainer(Store(), device, frozen=True, pack=resources.pack)
    others = 0 if resources.gpu else min(at_once, usable_cpus()) - 1
    found, kinds = dict[str, float](), _kinds(islice(specs, MOST_SPECS), device)
    with torch_threads(max(1, int(resources.cpu))), _busy(others):
        for key in (key for key in wanted if key in kinds):
            kind = kinds[key]
            job = replace(kind.job, data=replace(kind.job.data, download=False), keep=())
            together = ceil(kind.trials / at_once) * kind.alike
            try:
                alone = trainer.probe(job, PROBE_SECONDS / len(wanted))
                found[key] = alone / trainer.pack_gain(job, steps[key], together)
            except (LthError, RuntimeError):  # also torch.OutOfMemoryError
                continue
    return found


@dataclass
class _Kind:
    """Trainings of one speed."""

    job: Job
    """The first of them."""
    trials: int = 0
    """Number of trials that have them."""
    alike: int = 1
    """Largest number of them at one level of a trial."""


def _kinds(specs: Iterable[TicketSpec], device: str) -> dict[str, _Kind]:
    """Kinds of trainings at the first two levels of each spec, by `speed_key`."""
    kinds = dict[str, _Kind]()
    for spec in specs:
        seen = set[str]()
        for branches in islice(levels(spec), 2):
            keys = Counter[str]()
            for job in branches.values():
                key = speed_key(job, device)
                kinds.setdefault(key, _Kind(job))
                keys[key] += 1
            for key, alike in keys.items():
                kinds[key].alike = max(kinds[key].alike, alike)
            seen |= keys.keys()
        for key in seen:
            kinds[key].trials += 1
    return kinds


@contextmanager
def _busy(threads: int) -> Iterator[None]:
    """Keep cores busy with matrix products in the block, as other trials do: they share caches and
    memory, and two virtual cores may share one core."""
    ended = Event()

    def multiply() -> None:
        torch.set_num_threads(1)
        matrix = torch.ones(BUSY_SIZE, BUSY_SIZE)
        while not ended.is_set():
            matrix @ matrix

    started = [Thread(target=multiply, daemon=True) for _ in range(threads)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in started:
            thread.join()


def step_range(factors: SpeedFactors, device: str) -> tuple[float, float]:
    """Lowest and highest plausible seconds per step, from the network's multiply-adds."""
    _, shape, classes = data.outline(factors.data)
    network = template(factors.model, shape, classes)
    layers = shapes_and_positions(network, shape).values()
    forward = sum(prod(weights) * positions for weights, positions in layers)
    evaluated, trained = passes_per_step(factors.train, data.part_sizes(factors.data))
    products = forward * (evaluated + max(trained, TRAINING_PASSES))
    slow, fast = RATES[device]
    least, most = OVERHEADS[device]
    return least + products / fast, most + products / slow
