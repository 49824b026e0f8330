"""The algorithm: iterative magnitude pruning with rewinding and controls, and other methods.

Train the dense network; prune the trained weights; rewind the survivors; train them and the
controls; repeat (Frankle & Carbin 2019; rewinding to a step k: Frankle et al. 2020). Other methods
(`jobs/methods.py`) differ only in the job of the level's ticket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lth_core.jobs.branches import branch_job, twin
from lth_core.jobs.methods import WHEN, gate_training, given
from lth_core.jobs.recipes import Full, Init, Job
from lth_core.resolve import check_latency, forget_pins, resolve
from lth_core.results import LevelResult
from lth_core.spec import PruneAfter, PruneGates, TicketSpec
from lth_core.spec.fields import steps_in
from lth_core.ticket import load_ticket
from lth_core.train import Trainer


def levels(spec: TicketSpec, keep: Sequence[int] = ()) -> Iterator[dict[str, Job]]:
    """Jobs of each level by branch: the dense run at level 0, then `spec.levels` more levels.

    Nothing is trained here: a plan iterates over the same jobs. With branch `twin`, level 0 also
    has two copies of the dense network from the rewind point on, `rewound` and `twin`, as in
    instability analysis (Frankle et al. 2020). Both start with a new optimizer and differ in data
    order alone. The dense run carries its optimizer's state through the rewind point, so it is no
    such copy, unless the rewind point is 0: then it is `rewound` itself. Where gates find the
    structure, level 0 has their training, `gates`.

    Args:
        spec: a resolved spec.
        keep: further steps of the dense run to keep as rewind points, for other searches.
    """
    steps, rewind = steps_in(spec.train.steps), steps_in(spec.rewind)
    dense = Job(
        data=spec.data, model=spec.model, train=spec.train, seed=spec.seed, level=0,
        start=Init(seed=spec.seed), mask=Full(include=spec.prune.include), first=0, last=steps,
        keep=tuple(sorted({rewind, *keep} - {0})),
    )  # fmt: skip
    first = 0 if spec.restart_schedule else rewind
    rewound = replace(
        dense, start=dense.at(rewind), train=replace(spec.train, norm_penalty=0.0), first=first,
        keep=(), dense=dense,
    )  # fmt: skip
    branches = {"dense": dense}
    if "twin" in spec.branches:
        copied = replace(rewound, train=spec.train)
        branches |= ({"rewound": copied} if rewind else {}) | {"twin": twin(copied, dense)}
    if isinstance(spec.prune, PruneGates):
        branches["gates"] = gate_training(rewound, spec.prune)
    yield branches
    find, previous = WHEN[spec.prune.when], dict.fromkeys(spec.branches, dense)
    for level in range(1, spec.levels + 1):
        job = replace(rewound, level=level)
        if spec.ticket:
            ticket = given(job, spec)
        else:
            ticket = find(job, spec.prune, dense, previous["ticket"])
        jobs = {branch: branch_job(branch, ticket, previous[branch]) for branch in spec.branches}
        yield jobs
        if not (isinstance(spec.prune, PruneAfter) and spec.prune.one_shot):
            previous = jobs


def job_of(spec: TicketSpec, level: int, branch: str) -> Job:
    """The job of a branch at a level of a resolved spec, with the digests of all before it.

    A digest takes its parents', and those of hundreds of levels at once exceed the stack.
    """
    found = list(levels(spec))
    for branches in found[: level + 1]:
        for job in branches.values():
            assert job.digest
    return found[level][branch]


def find_tickets(
    spec: TicketSpec, train: Trainer | None = None, keep: Sequence[int] = ()
) -> Iterator[LevelResult]:
    """Search for tickets, one level at a time; stop iterating to stop searching.

    Args:
        spec: the search, resolved or not.
        train: by default a new `Trainer` with a store in memory.
        keep: further steps of the dense run to keep as rewind points, for other searches.

    Raises:
        SpecError: a field is wrong; raised before anything is trained.
        DataError: data are missing or broken.
        DivergedError: a loss is not finite.
    """
    forget_pins()
    unresolved, spec, train = spec, resolve(spec), train or Trainer()
    if unresolved != spec:  # a resolved spec was checked when it was planned
        check_latency(spec)
    if unresolved.ticket != spec.ticket:
        train.add_ticket(load_ticket(str(unresolved.ticket)))
    for level, jobs in enumerate(levels(spec, keep)):
        results = train(list(jobs.values()))
        yield LevelResult(spec, level, dict(zip(jobs, results, strict=True)), train)
