from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from toys import BRANCHES, jobs_of

from lth_core import TicketSpec, Trainer
from lth_core.jobs.recipes import Job, Pruned
from lth_core.masks import Mask, digest, nested, overlap
from lth_core.results import LevelResult

Masks = Callable[[Job], Mask]


@pytest.fixture
def mask(trainer: Trainer) -> Masks:
    return lambda job: trainer.mask(job.mask, job)


@pytest.fixture
def jobs(small: TicketSpec) -> list[dict[str, Job]]:
    return jobs_of(small)


@pytest.mark.parametrize("branch", ["random_mask", "shuffled_mask"])
@pytest.mark.parametrize("level", [1, 2])
def test_control_mask_differs_from_the_tickets_and_keeps_each_layers_count(
    branch: str, level: int, jobs: list[dict[str, Job]], mask: Masks
) -> None:
    ticket, control = mask(jobs[level]["ticket"]), mask(jobs[level][branch])
    for name, kept in ticket.items():
        assert control[name].shape == kept.shape
        assert int(control[name].sum()) == int(kept.sum())
        assert not torch.equal(control[name], kept)
    # No more alike than chance has it: two random sets of density d overlap by d / (2 - d).
    share = sum(int(m.sum()) for m in ticket.values()) / sum(m.numel() for m in ticket.values())
    assert overlap(ticket, control) == pytest.approx(share / (2 - share), abs=0.05)


@pytest.mark.parametrize("branch", ["random_mask", "shuffled_mask"])
def test_control_masks_are_seeded(
    branch: str, jobs: list[dict[str, Job]], trainer: Trainer, search: list[LevelResult]
) -> None:
    job = jobs[1][branch]
    one = trainer.mask(job.mask, job)
    assert digest(one) == digest(Trainer(trainer.store).mask(job.mask, job))
    reseeded = replace(job, mask=replace(job.mask, seed=1))
    assert digest(one) != digest(trainer.mask(reseeded.mask, reseeded))


def test_random_masks_are_nested_over_levels_and_shuffled_ones_drawn_anew(
    jobs: list[dict[str, Job]], mask: Masks
) -> None:
    assert nested(mask(jobs[2]["random_mask"]), mask(jobs[1]["random_mask"]))
    assert not nested(mask(jobs[2]["shuffled_mask"]), mask(jobs[1]["shuffled_mask"]))


def test_random_mask_of_the_next_level_does_not_follow_the_ticket(
    jobs: list[dict[str, Job]], mask: Masks
) -> None:
    assert not nested(mask(jobs[2]["random_mask"]), mask(jobs[1]["ticket"]))


def test_reinit_weights_differ_from_the_originals_and_between_levels(
    jobs: list[dict[str, Job]], trainer: Trainer, mask: Masks
) -> None:
    first, second = (trainer.start(jobs[level]["reinit"]) for level in (1, 2))
    original, rewound = trainer.start(jobs[0]["dense"]), trainer.start(jobs[1]["ticket"])
    for name in mask(jobs[1]["ticket"]):
        for other in (second, original, rewound):
            assert not (first[name] == other[name]).any()
        assert first[name].std().item() == pytest.approx(original[name].std().item(), rel=0.2)
    assert digest(mask(jobs[1]["reinit"])) == digest(mask(jobs[1]["ticket"]))


@pytest.mark.parametrize("branch", ["ticket", "random_mask", "shuffled_mask"])
def test_masked_branches_start_from_the_rewind_point(
    branch: str, jobs: list[dict[str, Job]], trainer: Trainer, search: list[LevelResult]
) -> None:
    point = trainer.final(jobs[0]["dense"].at(7))[0]  # type: ignore[arg-type]
    ticket = search[2].ticket_of(branch)
    for name, value in ticket.start.items():
        kept = ticket.mask.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value[kept], point[name][kept])
        assert not value[~kept].any()


def test_branches_of_a_level_train_alike_and_reinit_from_the_first_step_on(
    jobs: list[dict[str, Job]],
) -> None:
    for level in (1, 2):
        assert tuple(jobs[level]) == BRANCHES
        for branch, job in jobs[level].items():
            assert (job.first, job.last) == (0 if branch == "reinit" else 7, 40)
            assert (job.seed, job.level, job.order, job.train.lr) == (0, level, 0, 0.01)
        assert len({job.digest for job in jobs[level].values()}) == 4


def test_ticket_is_scored_on_the_last_ticket_never_on_a_control(jobs: list[dict[str, Job]]) -> None:
    for level in (1, 2):
        made = jobs[level]["ticket"].mask
        assert isinstance(made, Pruned)
        assert made.of == jobs[level - 1]["ticket" if level > 1 else "dense"]
