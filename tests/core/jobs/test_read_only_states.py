"""States and masks are shared by all that ask a trainer for them, so no recipe may change one."""

import pytest
from toys import same

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec
from lth_core.jobs.branches import BRANCHES
from lth_core.lottery import levels
from lth_core.resolve import resolve

TRAIN = TrainSpec(steps=8, evaluate_every=8, batch_size=20, lr=2e-3)
PRUNINGS = {
    "weights": PruneSpec(),
    "snip": PruneSpec(when="before", score="snip"),
    "rigl": PruneSpec(when="during", grow="gradient", every="2it"),
    "edge-popup": PruneSpec(when="never", score="edge-popup", lr=0.05),
}


@pytest.mark.parametrize("name", PRUNINGS)
def test_recipes_leave_what_a_trainer_keeps_as_it_was(name: str) -> None:
    branches = (
        tuple(b for b in BRANCHES if not b.startswith("scratch")) if name == "weights" else ()
    )
    spec = TicketSpec(
        model=ModelSpec(widths=(12,)), train=TRAIN, prune=PRUNINGS[name], levels=2, rewind="3it",
        branches=branches or ("ticket",),
    )  # fmt: skip
    jobs = [job for planned in levels(resolve(spec)) for job in planned.values()]
    trainer = Trainer(device="cpu", pack=1)
    trainer(jobs)
    for job in jobs:
        other = Trainer(trainer.store, "cpu")
        assert same(trainer.start(job), other.start(job)), job
        assert same(trainer.mask(job.mask, job), other.mask(job.mask, job)), job
        for mine, theirs in zip(trainer.final(job), other.final(job), strict=True):
            assert same(mine, theirs), job
