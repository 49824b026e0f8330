"""Branches of a level: the ticket and its controls, each a job made from the ticket's.

All branches of a level but `reinit` train for the same number of steps, and all but `twin` on the
same batches. `reinit` trains on the whole schedule; with `restart_schedule` all branches do. Where
training finds the ticket's mask, the controls have the final mask. Where the ticket's weights are
not trained, those of the controls are not either.

>>> from lth_core import ModelSpec, TicketSpec, TrainSpec, find_tickets
>>> spec = TicketSpec(model=ModelSpec(widths=(20,)), train=TrainSpec(steps=20), levels=1,
...                   rewind=5, branches=("ticket", "reinit", "inverted_mask", "finetune"))
>>> *_, level = find_tickets(spec)
>>> for row in level.records:
...     print(row["branch"], round(row["density"], 2), row["steps"])
ticket 0.8 15
reinit 0.8 20
inverted_mask 0.8 15
finetune 0.8 15

A layer without survivors has none in any control; an unpruned layer is unpruned in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lth_core.jobs.controls import (
    ConstantSign,
    FreshlyNarrow,
    InvertedMask,
    RandomMask,
    Reshuffled,
    ShuffledMask,
    WithStatistics,
)
from lth_core.jobs.recipes import FinalMask, Init, Job, MaskRecipe, Pruned
from lth_core.spec.fields import steps_in
from lth_core.spec.learning_rate import learning_rate

Branch = Callable[[Job, Job], Job]
"""(the ticket's job, the branch's job one level before or the dense run) -> the branch's job."""


def ticket(job: Job, previous: Job) -> Job:
    """The ticket's mask on the weights of the rewind point (Frankle & Carbin 2019; Frankle et al.
    2020)."""
    return job


def reinit(job: Job, previous: Job) -> Job:
    """The ticket's mask on freshly drawn weights, trained from the schedule's start, so also for
    the steps before the rewind point (Frankle & Carbin 2019, section 2)."""
    control = _control(job)
    first = control.first if control.first == control.last < job.last else 0
    return replace(control, start=Init(seed=job.seed, draw=("reinit", job.level)), first=first)


def random_mask(job: Job, previous: Job) -> Job:
    """The rewind point's weights under a random mask with the ticket's layer counts (Su et al.
    2020)."""
    control = _control(job)
    return replace(control, mask=RandomMask(like=control.mask, seed=job.seed))


def shuffled_mask(job: Job, previous: Job) -> Job:
    """The rewind point's weights under the ticket's mask, permuted within each layer (Frankle et
    al. 2021)."""
    control = _control(job)
    return replace(control, mask=ShuffledMask(like=control.mask, seed=job.seed, level=job.level))


def inverted_mask(job: Job, previous: Job) -> Job:
    """Weights of the rewind point that the ticket prunes, drawn at random to the ticket's layer
    counts (Frankle et al. 2021 keep those of lowest score)."""
    control = _control(job)
    return replace(control, mask=InvertedMask(like=control.mask, seed=job.seed))


def constant_sign(job: Job, previous: Job) -> Job:
    """The ticket with each weight set to its sign times the layer's standard deviation (Zhou et al.
    2019)."""
    return replace(_control(job), start=ConstantSign(of=job.start))


def reshuffled(job: Job, previous: Job) -> Job:
    """The ticket with its starting weights permuted within each layer (Zhou et al. 2019)."""
    return replace(_control(job), start=Reshuffled(of=job.start, seed=job.seed, level=job.level))


def trained(job: Job, previous: Job) -> Job:
    """The ticket's final mask on the rewind point's weights, trained; equal to the ticket unless
    its mask changes in training or is learned."""
    return replace(job, mask=_final_mask(job), finds=None)


def lr_rewind(job: Job, previous: Job) -> Job:
    """Trained weights, pruned and trained further with the learning rates of the ticket: from the
    rewind point on, or of the whole schedule (Renda et al. 2020)."""
    assert isinstance(job.mask, Pruned)
    return replace(job, start=previous, mask=replace(job.mask, of=previous))


def finetune(job: Job, previous: Job) -> Job:
    """Trained weights, pruned and trained further at the last learning rate (Han et al. 2015)."""
    rate = learning_rate(job.train, steps_in(job.train.steps) - 1)
    train = replace(job.train, lr=rate, schedule="constant", milestones=(), warmup="0it")
    return replace(lr_rewind(job, previous), train=train)


def twin(job: Job, previous: Job) -> Job:
    """A copy of the ticket's run with another data order, for instability analysis (Frankle et al.
    2020); at level 0, a copy of `rewound`, the dense network trained again from the rewind point
    on."""
    return replace(job, order=1)


def scratch_e(job: Job, previous: Job) -> Job:
    """The ticket's channels as a network of its own: fresh weights drawn for its widths, trained on
    the whole schedule (Scratch-E, Liu et al. 2019)."""
    control = _control(job)
    start = FreshlyNarrow(seed=job.seed, level=job.level)
    return replace(control, start=start, first=0, last=steps_in(job.train.steps))


def scratch_b(job: Job, previous: Job) -> Job:
    """`scratch_e` trained for the FLOPs of the dense run: its steps and milestones over the budget
    (Scratch-B, Liu et al. 2019)."""
    scratch = scratch_e(job, previous)
    assert isinstance(job.mask, Pruned)
    share = job.mask.prune.budget["flops"]

    def longer(duration: int | str) -> str:
        return f"{round(steps_in(duration) / share)}it"

    train = replace(
        job.train,
        steps=longer(job.train.steps),
        milestones=tuple(map(longer, job.train.milestones)),
    )
    return replace(scratch, train=train, last=steps_in(train.steps))


def _final_mask(job: Job) -> MaskRecipe:
    return FinalMask(by=job) if job.finds else job.mask


def _control(job: Job) -> Job:
    """The ticket's job with its final mask; without steps where the ticket trains no weights, as
    `branch_job` completes it."""
    learned = job.finds is not None and job.finds.when == "never"
    return replace(job, mask=_final_mask(job), finds=None, last=job.first if learned else job.last)


def branch_job(branch: str, job: Job, previous: Job) -> Job:
    """The job of a branch by its name.

    A control of a ticket whose weights are not trained takes no step, so its batch norm's
    statistics are estimated: those that it starts with are not of its weights.

    Args:
        job, previous: as for a `Branch`.
    """
    made = BRANCHES[branch](job, previous)
    if made.first == made.last < job.last:
        return replace(made, start=WithStatistics(of=made.start))
    return made


BRANCHES: dict[str, Branch] = {
    "ticket": ticket,
    "reinit": reinit,
    "random_mask": random_mask,
    "shuffled_mask": shuffled_mask,
    "inverted_mask": inverted_mask,
    "constant_sign": constant_sign,
    "reshuffled": reshuffled,
    "trained": trained,
    "lr_rewind": lr_rewind,
    "finetune": finetune,
    "twin": twin,
    "scratch_e": scratch_e,
    "scratch_b": scratch_b,
}

NOT_COMPARED = ("rewound", "twin", "gates")
"""Branches that are not trained for their accuracy: copies for barriers, and gates. `rewound` and
`gates` are at level 0 alone, and no study names them; see `lth_core.lottery.levels`."""

SCRATCH = ("scratch_e", "scratch_b")
"""Branches that train the ticket's channels as a network of its own."""

RETRAINED = ("lr_rewind", "finetune")
"""Branches that start from trained weights, so they need a ticket pruned after training."""
