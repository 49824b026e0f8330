"""Branches: what is trained at a level, each a job made from the ticket's.

All branches of a level but `reinit` train as long, and all but `twin` on the same batches. Where a
ticket's mask is found during its training, the controls get the final mask; where the ticket's
weights are not trained, neither are theirs.

>>> from lth_core import ModelSpec, TicketSpec, TrainSpec, find_tickets
>>> spec = TicketSpec(model=ModelSpec(widths=(20,)), train=TrainSpec(steps=20), levels=1,
...                   rewind=5, branches=("ticket", "reinit", "inverted_mask", "finetune"))
>>> *_, level = find_tickets(spec)
>>> for row in level.records():
...     print(row["branch"], round(row["density"], 2), row["steps"])
ticket 0.8 15
reinit 0.8 20
inverted_mask 0.8 15
finetune 0.8 15

A layer without survivors has none in any control; one that lost nothing is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lth_core.jobs.controls import (
    ConstantSign,
    InvertedMask,
    RandomMask,
    Reshuffled,
    ShuffledMask,
)
from lth_core.jobs.recipes import FinalMask, Init, Job, MaskRecipe, Pruned
from lth_core.spec.fields import steps_in
from lth_core.spec.learning_rate import learning_rate

Branch = Callable[[Job, Job], Job]
"""From a level's ticket job, and this branch's job before (or the dense run), to its own."""


def ticket(job: Job, before: Job) -> Job:
    """The ticket's mask on the weights of the rewind point (Frankle & Carbin 2019; Frankle et al.
    2020)."""
    return job


def reinit(job: Job, before: Job) -> Job:
    """The ticket's mask on freshly drawn weights, trained from the schedule's start: as long as the
    ticket's weights were in all (Frankle & Carbin 2019, section 2)."""
    control = _control(job)
    first = control.first if control.first == control.last < job.last else 0
    return replace(control, start=Init(seed=job.seed, draw=("reinit", job.level)), first=first)


def random_mask(job: Job, before: Job) -> Job:
    """The rewind point's weights under a random mask with the ticket's layer counts (Su et al.
    2020)."""
    control = _control(job)
    return replace(control, mask=RandomMask(like=control.mask, seed=job.seed))


def shuffled_mask(job: Job, before: Job) -> Job:
    """The rewind point's weights under the ticket's mask, permuted within each layer (Frankle et
    al. 2021)."""
    control = _control(job)
    return replace(control, mask=ShuffledMask(like=control.mask, seed=job.seed, level=job.level))


def inverted_mask(job: Job, before: Job) -> Job:
    """Weights that the ticket prunes, as many a layer as it keeps, drawn at random (Frankle
    et al. 2021 keep those of lowest score)."""
    control = _control(job)
    return replace(control, mask=InvertedMask(like=control.mask, seed=job.seed))


def constant_sign(job: Job, before: Job) -> Job:
    """The ticket with each weight its sign times the layer's deviation (Zhou et al. 2019)."""
    return replace(_control(job), start=ConstantSign(of=job.start))


def reshuffled(job: Job, before: Job) -> Job:
    """The ticket with its starting weights permuted within each layer (Zhou et al. 2019)."""
    return replace(_control(job), start=Reshuffled(of=job.start, seed=job.seed, level=job.level))


def trained(job: Job, before: Job) -> Job:
    """The ticket's mask on the rewind point's weights, trained: for masks found in training or
    learned without; else it is the ticket."""
    return replace(job, mask=_final_mask(job), finds=None)


def lr_rewind(job: Job, before: Job) -> Job:
    """Trained weights, pruned and trained on, learning rates from the rewind point's (Renda et al.
    2020)."""
    assert isinstance(job.mask, Pruned)
    return replace(job, start=before, mask=replace(job.mask, of=before))


def finetune(job: Job, before: Job) -> Job:
    """Trained weights, pruned and trained on at the last learning rate (Han et al. 2015)."""
    rate = learning_rate(job.train, steps_in(job.train.steps) - 1)
    train = replace(job.train, lr=rate, schedule="constant", milestones=(), warmup="0it")
    return replace(lr_rewind(job, before), train=train)


def twin(job: Job, before: Job) -> Job:
    """The ticket once more under another data order, for instability analysis (Frankle et al.
    2020); at level 0 the dense run, from the rewind point on."""
    return replace(job, order=1)


def _final_mask(job: Job) -> MaskRecipe:
    return FinalMask(by=job) if job.finds else job.mask


def _control(job: Job) -> Job:
    """The ticket's job under the mask it ends with; of no steps where it trains no weights."""
    learned = job.finds is not None and job.finds.when == "never"
    return replace(job, mask=_final_mask(job), finds=None, last=job.first if learned else job.last)


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
}

RETRAINED = ("lr_rewind", "finetune")
"""Branches that go on from trained weights, and so need some to be pruned."""
