"""A search that starts from another search's ticket: other optimizer, data, classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import jobs_of, same

from lth_core import (
    DataSpec,
    ModelSpec,
    PruneSpec,
    Ticket,
    TicketSpec,
    Trainer,
    TrainSpec,
    find_tickets,
)
from lth_core.errors import SpecError, StoreError
from lth_core.measures.weights import travel_by_mask
from lth_core.resolve import Pins, resolve
from lth_core.results import LevelResult

BRANCHES = ("ticket", "reinit", "random_mask")
SGD = TrainSpec(optimizer="sgd", lr=0.1, steps=20, evaluate_every=10)


@pytest.fixture(scope="module")
def source(search: list[LevelResult]) -> Ticket:
    """The ticket of level 2 on the digits, rewound to step 7, trained by Adam."""
    return search[2].ticket


@pytest.fixture(scope="module")
def file(source: Ticket, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "ticket.safetensors"
    source.save(path)
    return path


@pytest.fixture(scope="module")
def spec(file: Path, small: TicketSpec) -> TicketSpec:
    """The same network, trained by SGD from another seed."""
    return replace(
        small, train=SGD, ticket=str(file), levels=1, rewind=0, seed=5, branches=BRANCHES
    )


@pytest.fixture(scope="module")
def transferred(spec: TicketSpec) -> list[LevelResult]:
    return list(find_tickets(spec))


@pytest.fixture(scope="module")
def to_thirds(spec: TicketSpec) -> LevelResult:
    """The ticket on other images, of 3 classes in place of 10."""
    data = DataSpec(name="toys:thirds", validation=10)
    return list(find_tickets(replace(spec, data=data)))[1]


@pytest.mark.slow
def test_level_1_trains_the_given_mask_and_weights_with_the_searchs_optimizer(
    transferred: list[LevelResult], source: Ticket
) -> None:
    dense, level = transferred
    assert level.ticket.digest == source.digest
    assert same(level.mask, source.mask)
    assert same(level.ticket.start, source.start)
    job = level.results["ticket"].job
    assert (job.train.optimizer, job.first, job.last) == ("sgd", 0, 20)
    assert not same(dense.ticket.start, source.start)


@pytest.mark.slow
def test_controls_are_made_from_the_given_mask_and_keep_no_pruned_weight(
    transferred: list[LevelResult], source: Ticket
) -> None:
    rows = {row["branch"]: row for row in transferred[1].records}
    assert {row["weights_kept"] for row in rows.values()} == {rows["ticket"]["weights_kept"]}
    assert rows["ticket"]["density"] == source.density
    assert {row["method"] for row in rows.values()} == {"transfer"}
    assert {row["requested_density"] for row in rows.values()} == {None}
    reinit, drawn = (transferred[1].ticket_of(name) for name in ("reinit", "random_mask"))
    assert same(reinit.mask, source.mask)
    for name, mask in drawn.mask.items():
        assert not torch.equal(mask, source.mask[name])
        assert bool((drawn.start[name][mask] != 0).all())
        both = mask & source.mask[name]
        assert torch.equal(drawn.start[name][both], source.start[name][both])


@pytest.mark.slow
def test_output_layer_of_other_classes_is_fresh_and_whole(
    to_thirds: LevelResult, source: Ticket
) -> None:
    found = to_thirds.ticket
    assert found.classes == 3
    assert found.mask["output.weight"].shape == (3, 16)
    assert bool(found.mask["output.weight"].all())
    fresh = to_thirds.trainer.start(to_thirds.results["ticket"].job.dense)
    assert torch.equal(found.start["output.weight"], fresh["output.weight"])
    for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
        assert torch.equal(found.start[name], source.start[name])


def test_results_depend_on_the_tickets_content_not_on_its_path(
    spec: TicketSpec, source: Ticket, search: list[LevelResult], tmp_path: Path
) -> None:
    jobs = jobs_of(spec)[1]
    source.save(tmp_path / "copy.safetensors")
    search[1].ticket.save(tmp_path / "other.safetensors")
    copy, other = (
        jobs_of(replace(spec, ticket=str(tmp_path / name)))[1]
        for name in ("copy.safetensors", "other.safetensors")
    )
    assert copy == jobs
    assert all(other[name] != jobs[name] for name in BRANCHES)
    resolved = resolve(spec)
    assert resolved.ticket == source.digest
    assert resolve(resolved) == resolved
    assert resolve(replace(spec, ticket="it"), tickets={"it": source}) == resolved
    by_pin = resolve(replace(spec, ticket="it"), Pins(tickets={"it": source.digest}))
    assert by_pin.ticket == source.digest


def test_ticket_that_the_store_lost_is_an_error(spec: TicketSpec) -> None:
    with pytest.raises(StoreError, match="the ticket to start from"):
        list(find_tickets(resolve(spec), Trainer()))


@pytest.mark.parametrize(("changes", "message"), [
    ({"levels": 2}, "levels: must be 1 beside ticket"),
    ({"rewind": 7}, "rewind: must be 0 beside ticket"),
    ({"prune": PruneSpec(when="before", score="snip")}, "prune.when: must be after beside ticket"),
    ({"prune": PruneSpec(structure="neurons")}, "prune.structure: must be weights beside ticket"),
    ({"predictors": True}, "predictors: must be false beside ticket"),
    ({"branches": ("ticket", "finetune")}, r"branches: must be without \['finetune'\] beside"),
    ({"ticket": "nothing"}, "ticket: must be a ticket file, or the digest of a ticket in"),
    ({"model": ModelSpec(widths=(32, 20))},
     r"ticket: must have the network's prunable layers: fc2.weight of shape \(20, 32\), but got "
     r"\(16, 32\)"),
    ({"model": ModelSpec(widths=(32,))}, "ticket: must have the network's prunable layers, but got"),
])  # fmt: skip
def test_what_a_given_ticket_does_not_fit_is_refused(
    changes: dict[str, Any], message: str, spec: TicketSpec
) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        next(find_tickets(replace(spec, **changes)))


@pytest.mark.slow
def test_a_given_ticket_leaves_the_weights_that_its_trainer_draws_as_they_are(
    spec: TicketSpec,
) -> None:
    trainer = Trainer()
    dense, level = find_tickets(spec, trainer)
    job, ticket = dense.results["dense"].job, level.results["ticket"].job
    drawn = Trainer().start(job)
    assert same(trainer.start(job), drawn)
    moved = travel_by_mask(drawn, trainer.final(job)[0], trainer.mask_of(ticket))
    record = next(row for row in level.records if row["branch"] == "ticket")
    assert (record["travel_inside"], record["travel_outside"]) == moved
