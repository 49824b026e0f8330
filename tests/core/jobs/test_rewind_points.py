"""What rewinding later or earlier changes, and what it leaves alone."""

from dataclasses import replace
from typing import Any

import pytest
from toys import jobs_of, same

from lth_core import PruneSpec, TicketSpec, Trainer, find_tickets
from lth_core.jobs.branches import BRANCHES, RETRAINED, SCRATCH
from lth_core.masks import digest, masked
from lth_core.results import LevelResult

POINTS = ("0it", "5it", "7it", "100%")
ON = ("ticket", *RETRAINED)
MULTISTEP = {"schedule": "multistep", "milestones": (20, 30), "gamma": 0.5}
NEVER: dict[str, Any] = {"when": "never", "score": "supermask"}


@pytest.fixture(scope="module")
def stepped(small: TicketSpec) -> TicketSpec:
    """A rate of 0.01, 0.005 and 0.0025; the branches that go on from trained weights."""
    return replace(small, train=replace(small.train, **MULTISTEP), branches=ON)


def level(spec: TicketSpec, trainer: Trainer, number: int = 1) -> LevelResult:
    return list(find_tickets(spec, trainer))[number]


# To the end, and past the last milestone: fine-tuning


@pytest.mark.parametrize("rewind", ["40it", "100%"])
def test_rewinding_to_the_end_evaluates_the_pruned_network_as_it_is(
    rewind: str, stepped: TicketSpec, trainer: Trainer
) -> None:
    """So there the ticket, learning-rate rewinding and fine-tuning are one network."""
    search = list(find_tickets(replace(stepped, rewind=rewind), trainer))
    dense = trainer.final(search[0].results["dense"].job)[0]
    for found in search[1:]:
        ends = [trainer.final(found.results[branch].job)[0] for branch in ON]
        assert all(same(end, masked(dense, found.mask)) for end in ends)
        rows = found.records
        assert [row["steps"] for row in rows] == [0, 0, 0]
        for name in ("final_test_accuracy", "mask_digest", "ticket_digest"):
            assert len({row[name] for row in rows}) == 1
        assert [(row["travel"], row["sign_agreement"]) for row in rows] == [(0, 1)] * 3
        assert all(found.results[branch].training.curves.step == [40] for branch in ON)
    # The dense run is not pruned, and ends where it ends without a rewind point, too.
    accuracy = level(stepped, trainer, 0).records[0]["final_test_accuracy"]
    assert search[0].records[0]["final_test_accuracy"] == accuracy


@pytest.mark.parametrize("rewind", [30, 31, 39])
def test_from_the_last_milestone_on_both_ways_of_retraining_are_one(
    rewind: int, stepped: TicketSpec, trainer: Trainer
) -> None:
    for number in (1, 2):
        found = level(replace(stepped, rewind=rewind), trainer, number)
        by_rate, tuned = (trainer.final(found.results[branch].job) for branch in RETRAINED)
        assert same(by_rate[0], tuned[0])
        assert same(by_rate[1], tuned[1])
        curves = [found.results[branch].training.curves for branch in RETRAINED]
        assert curves[0] == curves[1]
        assert found.results["finetune"].job != found.results["lr_rewind"].job
        assert found.results["finetune"].job.train.lr == pytest.approx(0.0025)


@pytest.mark.parametrize("rewind", [7, 29])
def test_before_the_last_milestone_they_are_not(
    rewind: int, stepped: TicketSpec, trainer: Trainer
) -> None:
    found = level(replace(stepped, rewind=rewind), trainer)
    by_rate, tuned = (trainer.final(found.results[branch].job) for branch in RETRAINED)
    assert same(by_rate[1], tuned[1])
    assert not same(by_rate[0], tuned[0])


def test_before_the_end_the_ticket_differs_from_retrained_weights(
    stepped: TicketSpec, trainer: Trainer
) -> None:
    found = level(replace(stepped, rewind=39), trainer)
    ticket, by_rate = (trainer.final(found.results[b].job) for b in ("ticket", "lr_rewind"))
    assert same(ticket[1], by_rate[1])
    assert not same(ticket[0], by_rate[0])


def test_every_branch_can_be_asked_for_at_the_end(small: TicketSpec, trainer: Trainer) -> None:
    branches = tuple(name for name in BRANCHES if name not in SCRATCH)
    found = level(replace(small, rewind="100%", branches=branches, levels=1), trainer)
    steps = {row["branch"]: row["steps"] for row in found.records}
    assert steps == {**dict.fromkeys(branches, 0), "reinit": 40}


def test_masks_found_before_training_are_of_the_end_where_one_rewinds_to_it(
    small: TicketSpec, trainer: Trainer
) -> None:
    """Scored there by magnitude, they are those that are found after training."""
    spec = replace(small, rewind="100%", branches=("ticket",), levels=1)
    after = level(spec, trainer)
    before = level(replace(spec, prune=PruneSpec(when="before", **spec.prune.shared())), trainer)
    assert digest(before.mask) == digest(after.mask)
    assert before.ticket.digest == after.ticket.digest


# What rewind points share


def test_first_mask_is_the_same_wherever_one_rewinds_to(small: TicketSpec) -> None:
    """The dense run alone makes it; what the store remembers of each training says so."""
    trainer = Trainer()
    spec = replace(small, branches=("ticket",))
    digests: dict[int, list[str]] = {1: [], 2: []}
    for rewind in POINTS:
        for found in list(find_tickets(replace(spec, rewind=rewind), trainer))[1:]:
            entry = trainer.store.get("trainings", found.results["ticket"].job.digest)
            assert entry is not None
            digests[found.level].append(entry.meta["mask_digest"])
            assert entry.meta["mask_digest"] == found.records[0]["mask_digest"]
    assert len(set(digests[1])) == 1
    assert len(set(digests[2])) == len(POINTS)  # that one hangs on the retrained ticket
    # One dense run, and two tickets for each point.
    assert len(trainer.store.digests("trainings")) == 1 + 2 * len(POINTS)


def reinits(spec: TicketSpec, number: int) -> set[str]:
    """Digests of what is drawn anew at a level, over all rewind points."""
    jobs = [jobs_of(replace(spec, rewind=rewind))[number]["reinit"] for rewind in POINTS]
    assert {(job.first, job.last) for job in jobs} == {(0, 40)}
    return {job.digest for job in jobs}


def test_drawn_anew_is_trained_from_the_first_step_on_and_shared_under_one_mask(
    small: TicketSpec,
) -> None:
    assert len(reinits(small, 1)) == 1
    assert len(reinits(small, 2)) == len(POINTS)  # another mask each
    shot = replace(small, prune=replace(small.prune, one_shot=True))
    assert [len(reinits(shot, number)) for number in (1, 2)] == [1, 1]
    assert reinits(shot, 1) != reinits(shot, 2)
    before = replace(small, prune=PruneSpec(when="before", **small.prune.shared()))
    assert len(reinits(before, 1)) == len(POINTS)


def test_drawn_anew_is_not_trained_again_for_another_rewind_point(small: TicketSpec) -> None:
    trainer, spec = Trainer(), replace(small, branches=("ticket", "reinit"), levels=1)
    first, second = (level(replace(spec, rewind=rewind), trainer) for rewind in (7, 5))
    assert {branch: r.reused for branch, r in first.results.items()} == dict.fromkeys(
        ("ticket", "reinit"), False
    )
    assert {b: r.reused for b, r in second.results.items()} == {"ticket": False, "reinit": True}
    assert second.results["reinit"].training == first.results["reinit"].training
    assert first.results["reinit"].training.curves.step == [10, 20, 30, 40]
    assert second.ticket_of("reinit").rewind_step == 0


@pytest.mark.parametrize("rewind", [0, 7])
def test_drawn_anew_is_not_trained_where_nothing_is(rewind: int, small: TicketSpec) -> None:
    spec = replace(small, prune=PruneSpec(**NEVER), rewind=rewind)
    for jobs in jobs_of(spec)[1:]:
        assert (jobs["reinit"].first, jobs["reinit"].last) == (rewind, rewind)
