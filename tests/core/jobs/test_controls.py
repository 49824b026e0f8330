"""Controls beyond reinit and random masks, and controls of masks that a training finds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import jobs_of, same

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets, load_ticket
from lth_core.jobs.branches import BRANCHES, RETRAINED, SCRATCH
from lth_core.jobs.recipes import FinalMask, Job
from lth_core.masks import Mask, digest, kept, masked
from lth_core.results import LevelResult

CONTROLS = tuple(name for name in BRANCHES if name not in (*RETRAINED, *SCRATCH, "trained", "twin"))
SAME_MASK = ("reinit", "constant_sign", "reshuffled")
OTHER_MASK = ("random_mask", "shuffled_mask", "inverted_mask")
DURING: dict[str, dict[str, Any]] = {
    "gmp": {"begin": 10, "end": 30, "every": 5},
    "set": {"begin": 10, "end": 30, "every": 5, "grow": "random", "scope": "erk"},
    "rigl": {"begin": 10, "end": 30, "every": 5, "grow": "gradient"},
}
NEVER: dict[str, dict[str, Any]] = {"edge-popup": {}, "supermask": {"lr": 0.1}}


def spec_of(name: str, branches: tuple[str, ...] = (*CONTROLS, "trained")) -> TicketSpec:
    """33 steps from step 7 on; half of the weights."""
    prune = (
        PruneSpec(when="during", fraction=0.5, **DURING[name])
        if name in DURING
        else PruneSpec(when="never", score=name, fraction=0.5, **NEVER[name])
    )
    return TicketSpec(
        model=ModelSpec(widths=(32, 16)), train=TrainSpec(lr=0.01, steps=40, evaluate_every=10),
        prune=prune, levels=1, rewind=7, branches=branches,
    )  # fmt: skip


def level_of(name: str, trainer: Trainer) -> LevelResult:
    return list(find_tickets(spec_of(name), trainer))[1]


Masks = Callable[[Job], Mask]


@pytest.fixture
def mask(trainer: Trainer) -> Masks:
    return lambda job: trainer.mask(job.mask, job)


@pytest.fixture
def jobs(small: TicketSpec) -> list[dict[str, Job]]:
    return jobs_of(replace(small, branches=CONTROLS))


# Inverted masks, constant signs, reshuffled weights


@pytest.mark.parametrize("level", [1, 2])
def test_inverted_mask_keeps_as_many_of_what_the_ticket_prunes(
    level: int, jobs: list[dict[str, Job]], mask: Masks
) -> None:
    ticket, inverted = mask(jobs[level]["ticket"]), mask(jobs[level]["inverted_mask"])
    for name, m in ticket.items():
        assert int(inverted[name].sum()) == int(m.sum())
        if m.float().mean() <= 0.5:
            assert not (inverted[name] & m).any()
        else:  # all that it prunes, and some of the rest
            assert (inverted[name] | m).all()
            assert not torch.equal(inverted[name], m)


def test_inverted_masks_are_seeded(jobs: list[dict[str, Job]], mask: Masks) -> None:
    job = jobs[2]["inverted_mask"]
    other = replace(job, mask=replace(job.mask, seed=1))
    one, two = mask(job), mask(other)
    assert digest(one) == digest(job.mask.make(Trainer(), job))
    assert digest(one) != digest(two)


def test_constant_sign_is_the_sign_times_the_layers_deviation(
    jobs: list[dict[str, Job]], trainer: Trainer, mask: Masks
) -> None:
    job = jobs[2]["constant_sign"]
    start, point = trainer.start(job), trainer.start(jobs[2]["ticket"])
    for name in mask(job):
        deviation = float(point[name].double().std(correction=0))
        assert start[name].abs().unique().tolist() == [pytest.approx(deviation, rel=1e-5)]
        assert torch.equal(start[name].sign(), point[name].sign())
    assert all(torch.equal(start[name], point[name]) for name in point if name not in mask(job))
    assert digest(mask(job)) == digest(mask(jobs[2]["ticket"]))
    sizes = masked(start, mask(job))["fc1.weight"].abs().unique()
    assert (len(sizes), float(sizes[0])) == (2, 0.0)


def test_reshuffled_weights_are_the_tickets_in_another_order(
    jobs: list[dict[str, Job]], trainer: Trainer, mask: Masks
) -> None:
    starts = [trainer.start(jobs[level]["reshuffled"]) for level in (1, 2)]
    point = trainer.start(jobs[2]["ticket"])
    for name, m in mask(jobs[2]["reshuffled"]).items():
        assert torch.equal(starts[1][name][m].sort().values, point[name][m].sort().values)
        assert (starts[1][name][m] != point[name][m]).float().mean() > 0.9
        assert not torch.equal(starts[1][name][m], starts[0][name][m])
    assert torch.equal(starts[1]["fc1.bias"], point["fc1.bias"])
    assert same(starts[1], jobs[2]["reshuffled"].start.make(Trainer(), jobs[2]["reshuffled"]))
    other = replace(jobs[2]["reshuffled"].start, seed=1)  # type: ignore[type-var]
    assert not same(starts[1], other.make(trainer, jobs[2]["reshuffled"]))


# Structured tickets

STRUCTURED: dict[str, tuple[ModelSpec, PruneSpec]] = {
    "neurons": (ModelSpec(widths=(32, 16)), PruneSpec(structure="neurons", fraction=0.5)),
    "channels": (
        ModelSpec(name="conv-2", width=0.1),
        PruneSpec(structure="channels", fraction=0.5),
    ),
    "2:4": (ModelSpec(widths=(32, 18)), PruneSpec(structure="2:4", fraction=0.5)),
    "neurons, found in training": (
        ModelSpec(widths=(32, 16)),
        PruneSpec(when="during", structure="neurons", fraction=0.5, begin=7, end=30, every=5),
    ),
}


def unit_counts(mask: Mask, structure: str) -> dict[str, list[list[int]]]:
    """Of each layer the weights kept in each unit: a row, or four inputs of a row."""
    of = 4 if structure == "2:4" else 10**9
    return {
        name: [[int(part.sum()) for part in row.flatten().split(of)] for row in m]
        for name, m in mask.items()
    }


@pytest.mark.parametrize("control", OTHER_MASK)
@pytest.mark.parametrize("name", STRUCTURED)
def test_controls_of_a_structured_ticket_are_as_structured(
    name: str, control: str, trainer: Trainer
) -> None:
    model, prune = STRUCTURED[name]
    spec = TicketSpec(
        model=model, train=TrainSpec(lr=0.01, steps=40), prune=prune, levels=1, rewind=7,
        branches=("ticket", control),
    )  # fmt: skip
    jobs = jobs_of(spec)[1]
    ticket = trainer.mask_of(jobs["ticket"])
    other = trainer.mask(jobs[control].mask, jobs[control])
    assert digest(other) != digest(ticket)
    like, got = (unit_counts(m, prune.structure) for m in (ticket, other))
    if prune.structure == "2:4":
        assert got == like  # 32 inputs and 18: the last group has two
    for layer in like:  # rows whole or gone, as many of each
        assert sorted(got[layer]) == sorted(like[layer])


def test_inverted_mask_of_neurons_keeps_those_that_the_ticket_prunes(trainer: Trainer) -> None:
    model, prune = STRUCTURED["neurons"]
    spec = TicketSpec(
        model=model, train=TrainSpec(lr=0.01, steps=40), prune=prune, levels=1,
        branches=("ticket", "inverted_mask"),
    )  # fmt: skip
    ticket, inverted = (trainer.mask(job.mask, job) for job in jobs_of(spec)[1].values())
    for name in ("fc1.weight", "fc2.weight"):
        assert torch.equal(inverted[name].any(1), ~ticket[name].any(1))


# Where the mask is found in training


@pytest.mark.slow
@pytest.mark.parametrize("name", DURING)
def test_controls_of_a_mask_found_in_training_train_under_the_mask_found(
    name: str, trainer: Trainer
) -> None:
    level = level_of(name, trainer)
    found = level.mask
    for branch in (*SAME_MASK, "trained", *OTHER_MASK):
        job = level.results[branch].job
        control = trainer.final(job)[1]
        assert (job.finds, job.first, job.last) == (None, 0 if branch == "reinit" else 7, 40)
        assert [int(m.sum()) for m in control.values()] == [int(m.sum()) for m in found.values()]
        assert (digest(control) == digest(found)) == (branch not in OTHER_MASK)
        assert level.results[branch].training.curves.step == [10, 20, 30, 40]
    job = level.results["ticket"].job
    assert job.finds is not None
    assert digest(trainer.mask(job.mask, job)) != digest(found)
    assert len({row["training_digest"] for row in level.records}) == len(level.results)


@pytest.mark.parametrize("name", NEVER)
def test_controls_of_a_learned_mask_are_evaluated_as_they_are(name: str, trainer: Trainer) -> None:
    level = level_of(name, trainer)
    for branch in (*SAME_MASK, *OTHER_MASK):
        result = level.results[branch]
        state, mask = trainer.final(result.job)
        assert same(state, masked(trainer.start(result.job), mask))
        assert (digest(mask) == digest(level.mask)) == (branch in SAME_MASK)
        assert result.training.curves.step == [7]
    steps = {row["branch"]: row["steps"] for row in level.records}
    assert steps == {**dict.fromkeys(CONTROLS, 0), "ticket": 33, "trained": 33}


@pytest.mark.parametrize("name", ["gmp", "edge-popup"])
def test_trained_trains_the_subnetwork_found_from_the_rewind_point(
    name: str, trainer: Trainer
) -> None:
    level = level_of(name, trainer)
    job = level.results["trained"].job
    start, (state, mask) = masked(trainer.start(job), level.mask), trainer.final(job)
    assert job.mask == FinalMask(by=level.results["ticket"].job)
    assert same(trainer.start(job), trainer.final(level.results["ticket"].job.start)[0])
    for entry, m in mask.items():
        assert (state[entry] != start[entry])[m].float().mean() > 0.5
        assert not state[entry][~m].any()


@pytest.mark.parametrize("prune", [PruneSpec(), PruneSpec(when="before", score="snip")])
def test_trained_is_the_ticket_where_masks_are_found_without_training(
    prune: PruneSpec, small: TicketSpec
) -> None:
    jobs = jobs_of(replace(small, prune=prune, branches=("ticket", "trained")))
    assert jobs[1]["trained"] == jobs[1]["ticket"]
    assert jobs[2]["trained"] == jobs[2]["ticket"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DURING, *NEVER])
def test_ticket_file_holds_the_mask_found_and_the_rewind_points_weights(
    name: str, trainer: Trainer, tmp_path: Path
) -> None:
    level = level_of(name, trainer)
    level.ticket.save(tmp_path / "t")
    again = load_ticket(tmp_path / "t")
    job = level.results["ticket"].job
    row = level.records[0]
    assert digest(again.mask) == row["mask_digest"] == digest(trainer.final(job)[1])
    assert same(again.start, masked(trainer.start(job), level.mask))
    assert again.digest == row["ticket_digest"] == level.ticket_of("trained").digest
    assert kept(again.mask) == row["weights_kept"] == 1360
