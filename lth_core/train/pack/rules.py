"""Which jobs may be trained in one pack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from itertools import islice

from lth_core import models
from lth_core.jobs.recipes import Job, Recipe
from lth_core.spec import describe, sha256
from lth_core.spec.prune_base import CHANNELS

_PROGRAM = (
    "optimizer", "momentum", "nesterov", "batch_size", "steps", "evaluate_every", "precision"
)  # fmt: skip
"""Fields of `TrainSpec` in which the jobs of a pack are equal."""
_METHOD = ("when", "score", "grow")
"""Fields of a `Pruning` that changes or learns the mask, in which they are equal."""


@lru_cache(maxsize=4000)
def pack_key(job: Job) -> str | None:
    """Key of the jobs that one program can train; None where a job is trained alone.

    The jobs of a pack have one network, one dataset, one way to change the mask, and equal fields
    `_PROGRAM`. They may differ in seed, initialization, mask, start, data order, learning rate,
    weight decay, label noise and first step. A user's network may draw from global generators, and
    jobs whose channels are removed have networks of different widths.
    """
    if models.may_draw(job.model) or job.structure in CHANNELS:
        return None
    program = [describe(getattr(job.train, name)) for name in _PROGRAM]
    method = [getattr(job.finds, name, None) for name in _METHOD] if job.finds else None
    data = replace(job.data, label_noise=0.0)
    model = replace(job.model, init="as_built", norm_init="ones")  # these decide the start alone
    return sha256([describe(data), describe(model), program, method, job.last > job.first])


def groups(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Jobs of equal `pack_key`; none needs a job of its own or of a later group.

    Jobs that are trained alone are left out, as are equal jobs: see `distinct`.
    """
    left = {job.digest: job for job in distinct(jobs) if pack_key(job)}
    while left:
        ready = [job for job in left.values() if not needed(job, left.values())]
        alike: dict[str | None, list[Job]] = {}
        for job in ready:
            alike.setdefault(pack_key(job), []).append(left.pop(job.digest))
        yield from alike.values()


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, in their order; of equal ones the first, with the rewind points of all."""
    left: dict[str, Job] = {}
    for job in jobs:
        known = left.setdefault(job.digest, job)
        if not set(job.keep) <= set(known.keep):
            left[job.digest] = replace(known, keep=tuple(sorted({*known.keep, *job.keep})))
    return list(left.values())


def packs(
    jobs: Sequence[Job],
    later: Sequence[Job],
    size_of: Callable[[list[Job], list[Job]], int],
    is_ready: Callable[[Job], bool],
    may_join: Callable[[Job], bool],
) -> Iterator[list[Job]]:
    """Packs of jobs, filled up with later ones; train each before the next is taken.

    Args:
        size_of: most jobs in a pack, from those of one `pack_key` and the later ones of it.
        is_ready: whether a job is to be trained, after those of the jobs that it needs are.
        may_join: whether a later job can be trained now.
    """
    sooner = {job.digest for job in jobs}
    after = [job for job in distinct(later) if job.digest not in sooner]
    for alike in groups(jobs):
        others = [job for job in after if pack_key(job) == pack_key(alike[0]) and may_join(job)]
        size = size_of(alike, others)
        if size > 1:
            ready = [job for job in alike if is_ready(job)]
            ready += islice(filter(is_ready, others), -len(ready) % size)
            for number in range(0, len(ready), size):
                yield ready[number : number + size]


def needed(job: Job, jobs: Iterable[Job]) -> list[Job]:
    """Those of the jobs from whose result, or a rewind point, a job's start or mask is made."""
    runs = inputs(job)
    return [each for each in jobs if run_of(each) in runs]


def inputs(job: Job) -> set[str]:
    """`run_of` the trainings of whose results, or rewind points, a job's start or mask is made."""
    return set(map(run_of, _parents(job)))


@lru_cache(maxsize=4000)
def run_of(job: Job) -> str:
    """Digest of a job without its last step: a training and its rewind points have one."""
    return replace(job, last=job.first).digest


def _parents(recipe: Recipe) -> Iterator[Job]:
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, Job):
            if field.name != "dense":  # the search's dense run, not a part of the recipe
                yield value
        elif isinstance(value, Recipe):
            yield from _parents(value)
