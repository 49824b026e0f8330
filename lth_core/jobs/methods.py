"""Methods: the mask is found after, before, during or without training.

A function for each gives the job of a level's ticket. Controls, records and verdicts treat that
job alike for all methods.

>>> from lth_core import TrainSpec, find_tickets
>>> for prune in (
...     PruneSpec(when="after", fraction=0.5),
...     PruneSpec(when="before", fraction=0.5, score="snip"),
...     PruneSpec(when="during", fraction=0.5),
...     PruneSpec(when="never", fraction=0.5, score="edge-popup", lr=0.05),
... ):
...     spec = TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=2)
...     print(method(spec), [round(level.ticket.density, 2) for level in find_tickets(spec)])
imp [1.0, 0.5, 0.25]
snip [1.0, 0.5, 0.25]
gmp [1.0, 0.5, 0.25]
edge-popup [1.0, 0.5, 0.25]

Ties of scores are drawn at random by all methods. A layer without survivors is counted
(`collapsed_layers`), and the other weights still train.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lth_core.jobs.recipes import Full, Init, Job, Pruned, WithGates
from lth_core.jobs.transfer import GivenMask, GivenTicket, GivenWeights
from lth_core.prune import at_level, compounded
from lth_core.spec import (
    ModelSpec,
    PruneAfter,
    PruneDuring,
    PruneGates,
    PruneNever,
    PruneSpec,
    Pruning,
    TicketSpec,
    TrainSpec,
)
from lth_core.spec.fields import steps_in

Finder = Callable[[Job, Pruning, Job, Job], Job]
"""(the level's unpruned job, pruning, the dense run, the ticket one level before) -> the job of
the level's ticket."""


def after(job: Job, prune: Pruning, dense: Job, previous: Job) -> Job:
    """Train, prune the trained weights, rewind; level by level, or in one shot (Frankle & Carbin
    2019)."""
    assert isinstance(prune, PruneAfter)
    if prune.one_shot:
        total = replace(compounded(prune, job.level), one_shot=False)
        mask = Pruned(of=dense, prune=total, seed=job.seed)
    else:
        mask = Pruned(of=previous, prune=at_level(prune, job.level), seed=job.seed)
    return replace(job, mask=mask)


def before(job: Job, prune: Pruning, dense: Job, previous: Job) -> Job:
    """Prune the rewind point's weights, then train the survivors (Lee et al. 2019)."""
    prune = compounded(prune, job.level)
    return replace(job, mask=Pruned(of=job.start, prune=prune, seed=job.seed))


def during(job: Job, prune: Pruning, dense: Job, previous: Job) -> Job:
    """Prune during training: from the dense network (Zhu & Gupta 2017), or from a random mask of
    the final density (Mocanu et al. 2018)."""
    assert isinstance(prune, PruneDuring)
    prune = compounded(prune, job.level)
    if prune.schedule == "constant":
        first = PruneSpec(
            when="before", score="random", scope=prune.scope, fraction=prune.fraction,
            output_fraction=prune.output_fraction, layer_fractions=prune.layer_fractions,
            ignore=prune.ignore, include=prune.include, structure=prune.structure,
        )  # fmt: skip
        job = replace(job, mask=Pruned(of=job.start, prune=first, seed=job.seed))
    return replace(job, finds=prune)


def never(job: Job, prune: Pruning, dense: Job, previous: Job) -> Job:
    """Learn which of the rewind point's weights to keep; train no weights (Zhou et al. 2019)."""
    assert isinstance(prune, PruneNever)
    return replace(job, finds=compounded(prune, job.level))


def gates(job: Job, prune: Pruning, dense: Job, previous: Job) -> Job:
    """Train gates of channels over the rewind point's weights, remove the channels with the
    smallest, then train the others (Wang et al. 2020)."""
    assert isinstance(prune, PruneGates)
    model = _widened(job.model, prune)
    mask = Pruned(
        of=gate_training(job, prune), prune=compounded(prune, job.level), seed=job.seed,
        whole=None if model == job.model else job.model,
    )  # fmt: skip
    # The dense run has weights of other shapes than a widened network.
    return replace(job, model=model, mask=mask, dense=dense if model == job.model else None)


def gate_training(job: Job, prune: PruneGates) -> Job:
    """The training of the gates, one for all levels and budgets."""
    search = PruneGates(
        structure=prune.structure, keep_share=prune.keep_share, penalty=prune.penalty
    )  # fmt: skip
    held_out = job.data.validation if prune.gate_validation is None else prune.gate_validation
    train = TrainSpec(
        optimizer="adam", lr=prune.gate_lr, batch_size=prune.gate_batch_size,
        steps=prune.gate_steps, evaluate_every=prune.gate_every, precision=job.train.precision,
    )  # fmt: skip
    return Job(
        data=replace(job.data, validation=held_out),
        model=replace(_widened(job.model, prune), gates=True), train=train, seed=job.seed, level=0,
        start=WithGates(of=job.start), mask=Full(include=prune.include), finds=search, first=0,
        last=steps_in(prune.gate_steps),
    )  # fmt: skip


def given(job: Job, spec: TicketSpec) -> Job:
    """The job with the mask and the weights of the spec's given ticket (Morcos et al. 2019)."""
    assert spec.ticket is not None
    assert isinstance(job.start, Init)
    ticket = GivenTicket(content=spec.ticket)
    mask = GivenMask(ticket=ticket, include=spec.prune.include)
    return replace(job, mask=mask, start=GivenWeights(ticket=ticket, fresh=job.start))


def _widened(model: ModelSpec, prune: PruneGates) -> ModelSpec:
    return replace(model, width=model.width * prune.expand)


WHEN: dict[str, Finder] = {
    "after": after,
    "before": before,
    "during": during,
    "never": never,
    "gates": gates,
}


def method(spec: TicketSpec) -> str:
    """Short name of the spec's method.

    >>> method(TicketSpec()), method(TicketSpec(prune=PruneSpec(when="before", score="snip")))
    ('imp', 'snip')
    """
    prune = spec.prune
    if spec.ticket:
        return "transfer"
    if prune.when == "during":
        name = {"none": "gmp", "random": "set", "gradient": "rigl"}[prune.grow]
        if prune.grow == "none" and prune.score != "magnitude":
            name = f"gradual-{prune.score}"
    elif prune.when == "after":
        name = "one-shot" if prune.one_shot else "imp"
        if prune.score != "magnitude":
            name = f"{name}-{prune.score}"
    else:
        name = "magnitude-init" if prune.score == "magnitude" else prune.score
    if prune.when == "after" and steps_in(spec.rewind):
        name += "-rewind"
    if prune.scope == "erk" or prune.scope.startswith("like:"):
        name += f"-{prune.scope.replace(':', '-')}"
    if prune.structure == "weights" or prune.when == "gates":
        return name
    return f"{name}-{prune.structure}"
