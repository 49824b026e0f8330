from dataclasses import fields, replace

import pytest
import torch
from toys import jobs_of, same

from lth_core import (
    DataSpec,
    ModelSpec,
    PruneSpec,
    TicketSpec,
    Trainer,
    TrainSpec,
    find_tickets,
)
from lth_core.jobs.controls import ConstantSign, InvertedMask, RandomMask, Reshuffled, ShuffledMask
from lth_core.jobs.recipes import FinalMask, Full, Init, Job, Pruned, Recipe
from lth_core.masks import digest, masked, ones
from lth_core.prune import prune
from lth_core.prune.network import from_weights
from lth_core.seeds import generator


def job(**changes: object) -> Job:
    parts = {
        "data": DataSpec(), "model": ModelSpec(), "train": TrainSpec(), "seed": 0, "level": 0,
        "start": Init(seed=0), "mask": Full(), "first": 0, "last": 40,
    }  # fmt: skip
    return Job(**{**parts, **changes})  # type: ignore[arg-type]


CHANGES: dict[str, object] = {
    "data": DataSpec(split_seed=1),
    "model": ModelSpec(width=0.5),
    "train": TrainSpec(lr=0.1),
    "seed": 1,
    "level": 1,
    "order": 1,
    "start": Init(seed=1),
    "mask": Pruned(of=job(), prune=PruneSpec(), seed=0),
    "first": 1,
    "last": 41,
    "finds": PruneSpec(when="during"),
}


def test_every_field_of_a_job_that_decides_its_result_enters_its_digest() -> None:
    assert set(CHANGES) | {"keep", "dense"} == {f.name for f in fields(Job)}
    digests = {job(**{name: value}).digest for name, value in CHANGES.items()} | {job().digest}
    assert len(digests) == len(CHANGES) + 1
    assert job(keep=(7,)).digest == job().digest
    assert job(keep=(7,)) == job(dense=job()) == job()


def concrete(kind: type[Recipe]) -> list[type[Recipe]]:
    below = kind.__subclasses__()
    return [c for each in below for c in concrete(each)] if below else [kind]


def test_every_recipe_has_a_kind_of_its_own_for_its_digest() -> None:
    made = [c for c in concrete(Recipe) if c.__module__.startswith("lth_core.")]
    kinds = [vars(c).get("kind") for c in made]
    assert len(kinds) == len(set(kinds)) >= 13
    assert all(kinds)


def test_digest_of_every_recipe_covers_its_fields() -> None:
    made = Pruned(of=job(), prune=PruneSpec(), seed=0)
    recipes = [
        Full(), made, replace(made, seed=1), replace(made, of=job(seed=1)),
        replace(made, prune=PruneSpec(fraction=0.3)), replace(made, of=Init(seed=0)),
        FinalMask(by=job()), FinalMask(by=job(seed=1)),
        RandomMask(like=made, seed=0), RandomMask(like=made, seed=1),
        RandomMask(like=Full(), seed=0),
        ShuffledMask(like=made, seed=0, level=1), ShuffledMask(like=made, seed=0, level=2),
        ShuffledMask(like=made, seed=1, level=1),
        InvertedMask(like=made, seed=0), InvertedMask(like=made, seed=1),
        ConstantSign(of=job()), ConstantSign(of=job(seed=1)),
        Reshuffled(of=job(), seed=0, level=1), Reshuffled(of=job(), seed=1, level=1),
        Reshuffled(of=job(), seed=0, level=2), Reshuffled(of=job(seed=1), seed=0, level=1),
        Init(seed=0), Init(seed=1),
        Init(seed=0, draw=("reinit", 1)), Init(seed=0, draw=("reinit", 2)),
    ]  # fmt: skip
    assert len({recipe.digest for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": DataSpec(split_seed=1)},
        {"prune": PruneSpec(fraction=0.3)},
        {"rewind": "5it"},
        {"seed": 1},
    ],
)
def test_digest_of_the_last_ticket_covers_what_its_ancestors_were_made_with(
    changes: dict[str, object],
) -> None:
    spec = TicketSpec(levels=3, rewind="7it")
    assert jobs_of(spec)[3]["ticket"] != jobs_of(replace(spec, **changes))[3]["ticket"]


def test_ancestors_seed_alone_reaches_the_digest() -> None:
    """Through masks and starts, not only through the job's own fields."""

    def last(seed: int) -> Job:
        dense = job(start=Init(seed=seed))
        ticket = job(start=dense.at(7), mask=Pruned(of=dense, prune=PruneSpec(), seed=0), first=7)
        return replace(ticket, start=Init(seed=0), mask=replace(ticket.mask, of=ticket))

    assert last(0).digest == last(0).digest != last(1).digest


def test_state_at_a_step_is_the_start_or_the_run_stopped_there() -> None:
    dense = job(keep=(7,))
    assert dense.at(0) is dense.start
    assert dense.at(7) == job(last=7)
    assert dense.at(7).keep == ()


def first_ticket(small: TicketSpec, rewind: int, **fields: object) -> Job:
    pruning = PruneSpec(scope="global", fraction=0.5, **fields)  # type: ignore[arg-type]
    spec = replace(small, prune=pruning, rewind=rewind, levels=1, branches=("ticket",))
    return jobs_of(spec)[1]["ticket"]


@pytest.mark.parametrize("when", ["after", "before", "during"])
def test_score_that_works_in_place_changes_no_training(when: str, small: TicketSpec) -> None:
    ends = []
    for name in ("distance", "distance_in_place"):
        prune = PruneSpec(when=when, score=f"own_scores:{name}", fraction=0.5)
        spec = replace(small, prune=prune, branches=("ticket",), rewind=0)
        trainer = Trainer()
        jobs = [level.results["ticket"].job for level in list(find_tickets(spec, trainer))[1:]]
        ends.append([trainer.final(job) for job in jobs])
    for (state, mask), (other, own) in zip(*ends, strict=True):
        assert same(state, other)
        assert same(mask, own)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("rewind", [0, 7])
@pytest.mark.parametrize("score", ["magnitude", "own_scores:of_the_copy"])
def test_the_very_weights_that_are_trained_are_scored(
    when: str, rewind: int, score: str, small: TicketSpec, trainer: Trainer
) -> None:
    """Those of the rewind point, or of the dense run's end; also in the copy of the network."""
    job = first_ticket(small, rewind, when=when, score=score)
    state = trainer.start(job) if when == "before" else trainer.final(job.dense)[0]  # type: ignore[arg-type]
    weights = {name: state[name] for name in ones(trainer.model(job))}
    spec = PruneSpec(scope="global", fraction=0.5)
    expected = prune(from_weights(weights), spec, generator(0, "mask", "ties"))
    assert digest(trainer.mask(job.mask, job)) == digest(expected)


@pytest.mark.parametrize("fields", [{}, {"when": "before"}, {"one_shot": True}])
def test_initial_weights_are_those_first_drawn_at_every_level_and_rewind_point(
    fields: dict[str, object], small: TicketSpec, trainer: Trainer
) -> None:
    spec = replace(
        small, prune=PruneSpec(scope="global", fraction=0.5, score="large-init", **fields), rewind=7
    )
    drawn = trainer.start(jobs_of(spec)[0]["dense"])
    for branches in jobs_of(spec)[1:]:
        mask = trainer.mask(branches["ticket"].mask, branches["ticket"])
        sizes = torch.cat([drawn[name].abs().flatten() for name in mask])
        kept = torch.cat([m.flatten() for m in mask.values()])
        assert sizes[kept].min() >= sizes[~kept].max()


def test_masks_that_change_in_training_look_at_the_weights_first_drawn(
    small: TicketSpec, trainer: Trainer
) -> None:
    prune = PruneSpec(
        when="during", scope="global", score="large-init", fraction=0.5, begin=7, end=20
    )
    spec = replace(small, prune=prune, levels=1, branches=("ticket",))
    drawn, job = trainer.start(jobs_of(spec)[0]["dense"]), jobs_of(spec)[1]["ticket"]
    mask = trainer.mask_of(job)
    sizes = torch.cat([drawn[name].abs().flatten() for name in mask])
    kept = torch.cat([m.flatten() for m in mask.values()])
    assert 0 < int(kept.sum()) < len(kept)
    assert sizes[kept].min() >= sizes[~kept].max()


def test_candidate_has_its_state_and_draws_as_many_examples_of_each_class_as_asked(
    small: TicketSpec, trainer: Trainer
) -> None:
    job = first_ticket(small, 0, when="before")
    state = trainer.start(job)
    mask = trainer.mask(job.mask, job)
    network = trainer.prunable_network(state, mask, state, job, PruneSpec(examples=3))
    assert same(network.weights, {name: masked(state, mask)[name] for name in mask})
    assert same(dict(network.copy().state_dict()), state)
    assert same(dict(network.model().state_dict()), masked(state, mask))
    x, y = network.batch()
    assert torch.bincount(y).tolist() == [3] * 10
    assert -1 < float(x.mean()) < 1  # normalized, as the network takes them
    reseeded = trainer.prunable_network(state, mask, state, replace(job, seed=1), network.spec)
    assert torch.equal(network.batch()[0], x)
    assert not torch.equal(reseeded.batch()[0], x)


def test_copies_that_a_score_spoils_leave_the_weights_alone(
    small: TicketSpec, trainer: Trainer
) -> None:
    job = first_ticket(small, 0, when="before")
    state = trainer.start(job)
    before = {name: value.clone() for name, value in state.items()}
    network = trainer.prunable_network(state, ones(trainer.model(job)), state, job, PruneSpec())
    with torch.no_grad():
        for parameter in network.model().parameters():
            parameter.fill_(7)
    assert same(state, before)
    assert same(dict(network.copy().state_dict()), before)
