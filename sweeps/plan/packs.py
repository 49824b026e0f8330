"""Packs of trials: the trials of a work item, which train together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import ceil

from lth_core.analysis.groups import group_by
from lth_core.lottery import levels
from lth_core.models.latency import torch_threads
from lth_core.train import Trainer
from lth_core.train.pack.rules import pack_key
from lth_core.train.pack.size import steps_of
from sweeps.plan.plan import Trial
from sweeps.studies.schema import Resources

MOST_ON_GPU = 32
"""Most trials of a pack on a GPU, where a worker measures how many jobs it trains as one program.
"""


def packs_of(
    trials: Sequence[Trial], resources: Resources, trainer: Trainer, concurrency: int
) -> Iterator[list[Trial]]:
    """Trials in packs, in their order; each trial whose jobs are trained alone is a pack.

    Args:
        trainer: measures the size of packs for `pack: auto` on a CPU.
        concurrency: number of items that run at once; no pack is so large that one has none.
    """
    for alike in group_by(trials, _programs).values():
        most = ceil(len(alike) / concurrency)
        size = min(most, _size(alike, resources, trainer)) if _programs(alike[0]) else 1
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _programs(trial: Trial) -> list[str]:
    """Keys of the programs that train a trial's first two levels; empty where a job has none."""
    keys = [pack_key(job) for jobs in islice(levels(trial.spec), 2) for job in jobs.values()]
    return [key for key in keys if key] if all(keys) else []


def _size(trials: Sequence[Trial], resources: Resources, trainer: Trainer) -> int:
    if resources.pack != "auto":
        return resources.pack
    if resources.gpu:
        return MOST_ON_GPU
    if len(trials) < 2:
        return 1
    steps = steps_of(job for trial in trials for job in trial.jobs())
    with torch_threads(max(1, int(resources.cpu))):  # as many as a worker has
        return trainer.pack_size(next(trials[0].jobs()), steps)
