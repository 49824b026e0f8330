"""Jobs of small searches."""

from collections.abc import Iterator, Sequence
from typing import Any

from toys import jobs_of

from lth_core import ModelSpec, TicketSpec, TrainSpec
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.resolve import resolve

CONTROLS = ("ticket", "reinit", "random_mask")
MLP = ModelSpec(widths=(20,))
QUICK = TrainSpec(lr=2e-3, steps="12it", evaluate_every="4it")
TICKETS: dict[str, Any] = {"model": MLP, "train": QUICK, "levels": 1, "branches": CONTROLS}


def searches(seeds: Sequence[int], rewinds: Sequence[int], **fields: Any) -> list[TicketSpec]:
    return [
        resolve(TicketSpec(seed=seed, rewind=rewind, **fields))
        for seed in seeds
        for rewind in rewinds
    ]


def by_level(specs: Sequence[TicketSpec]) -> Iterator[list[Job]]:
    """The jobs of all searches, level by level."""
    for level in zip(*map(levels, specs), strict=True):
        yield [job for branches in level for job in branches.values()]


def dense_of(spec: TicketSpec) -> Job:
    return jobs_of(spec)[0]["dense"]
