"""The algorithm: iterative magnitude pruning with rewinding and controls, and its rivals.

Train the dense network; prune the trained weights; rewind the survivors; train them and the
controls; repeat (Frankle & Carbin 2019; rewinding to a step k: Frankle et al. 2020). Other methods
(`jobs/methods.py`) differ in one line: the job of the level's ticket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lth_core.jobs.branches import BRANCHES, twin
from lth_core.jobs.methods import WHEN
from lth_core.jobs.recipes import Full, Init, Job
from lth_core.resolve import resolve
from lth_core.results import LevelResult
from lth_core.spec import PruneAfter, TicketSpec
from lth_core.spec.fields import steps_in
from lth_core.train import Trainer
from lth_core.train.training import Result

Train = Callable[[Sequence[Job]], list[Result]]


def levels(spec: TicketSpec, keep: Sequence[int] = ()) -> Iterator[dict[str, Job]]:
    """Jobs of each level, by branch: level 0 is the dense run, then `spec.levels` more.

    Nothing is trained here, so a plan uses the same iteration.

    Args:
        spec: a resolved spec.
        keep: further steps of the dense run to keep as rewind points, for other searches.
    """
    steps, rewind = steps_in(spec.train.steps), steps_in(spec.rewind)
    dense = Job(
        data=spec.data, model=spec.model, train=spec.train, seed=spec.seed, level=0,
        start=Init(seed=spec.seed), mask=Full(), first=0, last=steps,
        keep=tuple(sorted({rewind, *keep} - {0})),
    )  # fmt: skip
    rewound = replace(dense, start=dense.at(rewind), first=rewind, keep=(), dense=dense)
    yield {"dense": dense} | ({"twin": twin(rewound, dense)} if "twin" in spec.branches else {})
    find, before = WHEN[spec.prune.when], dict.fromkeys(spec.branches, dense)
    for level in range(1, spec.levels + 1):
        ticket = find(replace(rewound, level=level), spec.prune, dense, before["ticket"])
        jobs = {branch: BRANCHES[branch](ticket, before[branch]) for branch in spec.branches}
        yield jobs
        if not (isinstance(spec.prune, PruneAfter) and spec.prune.one_shot):
            before = jobs


def find_tickets(
    spec: TicketSpec, train: Trainer | None = None, keep: Sequence[int] = ()
) -> Iterator[LevelResult]:
    """Search for tickets, one level at a time; stop iterating to stop searching.

    Args:
        spec: what to search for.
        train: jobs -> results; by default a new `Trainer` with a store in memory.
        keep: further steps of the dense run to keep as rewind points, for other searches.

    Raises:
        SpecError: before anything is trained.
        DivergedError: a loss stopped being finite.
    """
    spec, train = resolve(spec), train or Trainer()
    for level, jobs in enumerate(levels(spec, keep)):
        results = train(list(jobs.values()))
        yield LevelResult(spec, level, dict(zip(jobs, results, strict=True)), train)
