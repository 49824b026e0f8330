"""Fine-tuning and learning-rate rewinding: going on from trained weights."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from toys import jobs_of, same

from lth_core import TicketSpec, Trainer, find_tickets
from lth_core.jobs.recipes import Job, Pruned
from lth_core.masks import masked, nested
from lth_core.results import LevelResult
from lth_core.spec.learning_rate import learning_rate

RETRAINED = ("lr_rewind", "finetune")
MULTISTEP = {"schedule": "multistep", "milestones": (20, 30), "gamma": 0.5}


@pytest.fixture
def spec(small: TicketSpec) -> TicketSpec:
    train = replace(small.train, **MULTISTEP)
    return replace(small, train=train, branches=("ticket", *RETRAINED))


@pytest.fixture
def found(spec: TicketSpec, trainer: Trainer) -> list[LevelResult]:
    return list(find_tickets(spec, trainer))


def chain(jobs: list[dict[str, Job]], branch: str) -> list[Job]:
    return [jobs[0]["dense"], *(level[branch] for level in jobs[1:])]


@pytest.mark.parametrize("branch", RETRAINED)
def test_each_level_continues_from_the_branchs_own_weights_before(
    branch: str, spec: TicketSpec
) -> None:
    for before, job in pairwise(chain(jobs_of(spec), branch)):
        assert isinstance(job.mask, Pruned)
        assert job.start == job.mask.of == before


@pytest.mark.parametrize("branch", RETRAINED)
def test_one_shot_always_continues_from_the_dense_weights(branch: str, spec: TicketSpec) -> None:
    jobs = jobs_of(replace(spec, prune=replace(spec.prune, one_shot=True)))
    for level in (1, 2):
        job, dense = jobs[level][branch], jobs[0]["dense"]
        assert isinstance(job.mask, Pruned)
        assert job.start == job.mask.of == dense
        assert job.mask.prune.fraction == 1 - 0.5**level


@pytest.mark.parametrize("branch", RETRAINED)
def test_mask_is_that_of_the_weights_training_continues_from(
    branch: str, found: list[LevelResult], trainer: Trainer
) -> None:
    for level in (1, 2):
        job = found[level].results[branch].job
        start, (_, outer) = trainer.start(job), trainer.final(job.start)  # type: ignore[arg-type]
        mask = trainer.mask(job.mask, job)
        assert nested(mask, outer)
        for name, m in mask.items():
            gone = outer[name] & ~m
            assert start[name][gone].abs().max() <= start[name][m].abs().min()
        assert same(found[level].ticket_of(branch).start, masked(start, mask))
    ticket, own = found[1].ticket, found[1].ticket_of(branch)
    assert all(torch.equal(own.mask[name], m) for name, m in ticket.mask.items())
    assert not torch.equal(own.start["fc1.weight"], ticket.start["fc1.weight"])


@pytest.mark.parametrize("branch", RETRAINED)
def test_retraining_takes_as_many_steps_as_the_tickets(branch: str, spec: TicketSpec) -> None:
    for level in jobs_of(spec)[1:]:
        assert (level[branch].first, level[branch].last) == (7, 40)
        assert (level["ticket"].first, level["ticket"].last) == (7, 40)


SCHEDULES: dict[str, tuple[dict[str, Any], float]] = {
    "multistep": (MULTISTEP, 0.0025),
    "cosine": ({"schedule": "cosine"}, 0.01 * 0.00154133),  # (1 + cos(39/40 pi)) / 2
    "warm-up": ({"warmup": 20}, 0.01),
    "warm-up and cosine": ({"schedule": "cosine", "warmup": 20}, 0.01 * 0.00615583),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_finetuning_stays_at_the_last_learning_rate(schedule: str, small: TicketSpec) -> None:
    fields, last = SCHEDULES[schedule]
    train = replace(small.train, **fields)
    for level in jobs_of(replace(small, train=train, branches=("ticket", *RETRAINED)))[1:]:
        rates = {learning_rate(level["finetune"].train, step) for step in range(7, 40)}
        assert list(rates) == [pytest.approx(last, rel=1e-4)]
        # Learning-rate rewinding goes through the schedule again from the rewind point on.
        assert level["lr_rewind"].train == level["ticket"].train
        assert learning_rate(level["lr_rewind"].train, 7) != rates.pop()


def test_at_a_constant_rate_both_are_one_training(small: TicketSpec) -> None:
    for level in jobs_of(replace(small, branches=("ticket", *RETRAINED)))[1:]:
        assert level["finetune"].digest == level["lr_rewind"].digest
    train = replace(small.train, **MULTISTEP)
    for level in jobs_of(replace(small, train=train, branches=("ticket", *RETRAINED)))[1:]:
        assert level["finetune"].digest != level["lr_rewind"].digest
