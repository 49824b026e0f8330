from dataclasses import replace
from typing import Any

import pytest

from lth_core import (
    DataSpec,
    ModelSpec,
    PruneSpec,
    TicketSpec,
    Trainer,
    TrainSpec,
    find_tickets,
)

pytestmark = pytest.mark.slow


def pruned(when: str, **more: Any) -> PruneSpec:
    """Pruning of channels to half of the FLOPs."""
    return PruneSpec(when=when, structure="channels", scope="global", budget={"flops": 0.5}, **more)


SMALL = TicketSpec(
    data=DataSpec(name="digits", fraction=0.1, validation=20),
    model=ModelSpec(name="resnet-8", width=0.25),
    train=TrainSpec(optimizer="sgd", lr=0.05, batch_size=20, steps=5, evaluate_every=5),
    prune=pruned("after"),
    levels=1,
    branches=("ticket",),
)
GATES = replace(SMALL, prune=pruned("gates", gate_steps=3, gate_every=3, gate_batch_size=20))


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer()


def examples_of(spec: TicketSpec, trainer: Trainer) -> list[float]:
    """Cost of finding each level's mask, in examples that the dense network is trained on."""
    levels = [level.records for level in find_tickets(spec, trainer)]
    (dense,) = [row for row in levels[0] if row["branch"] == "dense"]
    assert dense["search_flops"] == 0
    return [row["search_flops"] / (3 * dense["dense_flops"]) for rows in levels[1:] for row in rows]


def test_a_mask_of_trained_weights_costs_their_training(trainer: Trainer) -> None:
    assert examples_of(SMALL, trainer) == [5 * 20]


def test_pre_training_is_a_part_of_the_search(trainer: Trainer) -> None:
    before = replace(SMALL, rewind=2, prune=pruned("before", score="slimming"))
    assert examples_of(before, trainer) == [2 * 20]
    assert examples_of(GATES, trainer) == [3 * 20]
    assert examples_of(replace(GATES, rewind=2), trainer) == [2 * 20 + 3 * 20]


def test_a_run_and_its_beginning_count_once(trainer: Trainer) -> None:
    halves = PruneSpec(structure="channels", scope="global", fraction=0.5)
    spec = replace(SMALL, rewind=2, levels=2, prune=halves)
    first, second = examples_of(spec, trainer)
    *_, level, _ = find_tickets(spec, trainer)
    (ticket,) = level.records
    # Level 2 is found by the ticket of level 1, which goes on from step 2 of the dense run.
    trained = ticket["train_flops"] / (3 * ticket["dense_flops"])
    assert (first, second) == (5 * 20, pytest.approx(5 * 20 + trained))
    assert 0 < trained < 3 * 20


def test_a_score_of_examples_costs_their_passes(trainer: Trainer) -> None:
    snip = replace(SMALL, prune=pruned("before", score="snip", examples=2))
    assert examples_of(snip, trainer) == [2 * 10]  # 2 of each class
