"""Packs of trials: the trials of a work item, which train together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from math import ceil

from lth_core.analysis.groups import group_by
from lth_core.jobs.recipes import Full, Job
from lth_core.lottery import levels
from lth_core.models.latency import torch_threads
from lth_core.train import Trainer
from lth_core.train.pack.rules import inputs, pack_key, packs, run_of
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

    Trials of a pack have equal numbers of levels: else some workers would have all the long ones.

    Args:
        trainer: measures the size of packs for `pack: auto` on a CPU.
        concurrency: number of items that run at once; no pack is so large that one has none.
    """
    for alike in group_by(trials, lambda t: (_programs(t), t.spec.levels)).values():
        most = ceil(len(alike) / concurrency)
        size = min(most, _size(alike, resources, trainer)) if _programs(alike[0]) else 1
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _programs(trial: Trial) -> list[str]:
    """Keys of the programs that train a trial's first two levels; empty where a job has none."""
    keys = [pack_key(job) for jobs in islice(levels(trial.spec), 2) for job in jobs.values()]
    return [key for key in keys if key] if all(keys) else []


def _size(trials: Sequence[Trial], resources: Resources, trainer: Trainer) -> int:
    """Number of trials that fill the packs of all their programs."""
    if resources.pack != "auto":
        return resources.pack
    if resources.gpu:
        return MOST_ON_GPU
    if len(trials) < 2:
        return 1
    jobs = [job for trial in trials for job in trial.jobs()]
    with torch_threads(max(1, int(resources.cpu))):  # as many as a worker has
        return max(
            ceil(trainer.pack_size(*_sample(key, jobs)) / at_once)
            for key, at_once in _least_at_once(trials[0]).items()
        )


def _sample(key: str, jobs: Sequence[Job]) -> tuple[Job, int]:
    """A job of a program whose speed can be measured before any training, and the program's steps.

    The speed does not depend on the weights; a mask that keeps all of them is as fast in a pack.
    """
    alike = [job for job in jobs if pack_key(job) == key]
    untrained = replace(alike[0], start=alike[0].root, mask=Full(include=alike[0].mask.include))
    return untrained, steps_of(alike)


def _least_at_once(trial: Trial) -> dict[str, int]:
    """Least number of jobs of each program that a trial alone trains at once, by `pack_key`.

    A dense run is alone; levels whose masks do not depend on the level before train together.
    """
    planned = [list(jobs.values()) for jobs in levels(trial.spec)]
    trained, least = set[str](), dict[str, int]()
    for level, jobs in enumerate(planned):
        later = list(chain(*planned[level + 1 :]))
        for pack in packs(
            jobs, later,
            size_of=lambda alike, others: 1 + len(alike) + len(others),
            is_ready=lambda job: run_of(job) not in trained,
            may_join=lambda job: inputs(job) <= trained,
        ):  # fmt: skip
            trained.update(map(run_of, pack))
            key = str(pack_key(pack[0]))
            least[key] = min(len(pack), least.get(key, len(pack)))
    return least
