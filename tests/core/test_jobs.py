from dataclasses import fields, replace

import pytest
from toys import jobs_of

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec
from lth_core.branches import RandomMask, ShuffledMask
from lth_core.jobs import Full, Init, Job, Pruned


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
    "start": Init(seed=1),
    "mask": Pruned(after=job(), prune=PruneSpec(), seed=0),
    "first": 1,
    "last": 41,
}


def test_every_field_of_a_job_but_keep_enters_its_digest() -> None:
    assert set(CHANGES) | {"keep"} == {f.name for f in fields(Job)}
    digests = {job(**{name: value}).digest for name, value in CHANGES.items()} | {job().digest}
    assert len(digests) == len(CHANGES) + 1
    assert job(keep=(7,)).digest == job().digest
    assert job(keep=(7,)) == job()


def test_digest_of_every_recipe_covers_its_fields() -> None:
    made = Pruned(after=job(), prune=PruneSpec(), seed=0)
    recipes = [
        Full(), made, replace(made, seed=1), replace(made, after=job(seed=1)),
        replace(made, prune=PruneSpec(fraction=0.3)),
        RandomMask(like=made, seed=0), RandomMask(like=made, seed=1),
        RandomMask(like=Full(), seed=0),
        ShuffledMask(like=made, seed=0, level=1), ShuffledMask(like=made, seed=0, level=2),
        ShuffledMask(like=made, seed=1, level=1),
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
        ticket = job(
            start=dense.at(7), mask=Pruned(after=dense, prune=PruneSpec(), seed=0), first=7
        )
        return replace(ticket, start=Init(seed=0), mask=replace(ticket.mask, after=ticket))

    assert last(0).digest == last(0).digest != last(1).digest


def test_state_at_a_step_is_the_start_or_the_run_stopped_there() -> None:
    dense = job(keep=(7,))
    assert dense.at(0) is dense.start
    assert dense.at(7) == job(last=7)
    assert dense.at(7).keep == ()
