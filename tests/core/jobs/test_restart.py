"""`restart_schedule`: a rewound ticket trains on the whole schedule again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from toys import jobs_of, same

from lth_core import (
    ModelSpec,
    PruneSpec,
    TicketSpec,
    Trainer,
    TrainSpec,
    data,
    find_tickets,
    models,
)
from lth_core.errors import SpecError
from lth_core.jobs.branches import BRANCHES, SCRATCH
from lth_core.masks import State
from lth_core.resolve import resolve
from lth_core.results import LevelResult
from lth_core.seeds import generator
from lth_core.spec import PruneDuring
from lth_core.ticket import load_ticket
from lth_core.train.batches import Order

NEVER = PruneSpec(when="never", score="supermask")


@pytest.fixture(scope="module")
def spec(small: TicketSpec) -> TicketSpec:
    """Rewound to step 7 of 40; warm-up and a milestone, so that the schedule has steps to tell."""
    train = TrainSpec(
        optimizer="sgd", momentum=0.9, lr=0.1, steps=40, evaluate_every=10,
        schedule="multistep", milestones=(20,), warmup=5,
    )  # fmt: skip
    return replace(
        small, train=train, restart_schedule=True, levels=1,
        branches=("ticket", "reinit", "lr_rewind", "finetune", "twin"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(spec: TicketSpec, trainer: Trainer) -> list[LevelResult]:
    return list(find_tickets(replace(spec, predictors=True), trainer))


def test_search_equals_a_loop_written_by_hand(
    spec: TicketSpec, found: list[LevelResult], trainer: Trainer
) -> None:
    """Train dense, prune by hand, rewind to step 7, train steps 0 to 39 of the schedule again."""
    dataset = data.load(spec.data, torch.device("cpu"))
    model = models.build(spec.model, dataset.shape, 10, generator(0, "init")).train()
    prunable = [f"{layer}.weight" for layer in ("fc1", "fc2", "output")]

    def train(start: State, mask: State, run: str, steps: range) -> State:
        model.load_state_dict({n: v * mask[n] if n in mask else v for n, v in start.items()})
        momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        batches = Order(len(dataset.train), 60, 0, run).batches(0, 40, torch.device("cpu"))
        for step, (_, index, _) in zip(steps, batches, strict=False):
            rate = 0.1 * (step + 1) / 5 if step < 5 else 0.1 if step < 20 else 0.01
            model.zero_grad()
            x = dataset.normalize(dataset.train.x[index])
            cross_entropy(model(x), dataset.train.y[index]).backward()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    momentum[name] = 0.9 * momentum[name] + parameter.grad
                    parameter -= rate * momentum[name]
                    parameter *= mask.get(name, torch.tensor(1.0))
        return {name: value.detach().clone() for name, value in model.state_dict().items()}

    start = {name: value.clone() for name, value in model.state_dict().items()}
    point, dense = train(start, {}, "0", range(7)), train(start, {}, "0", range(40))
    mask = {}
    for name in prunable:
        size = dense[name].abs()
        lowest = (
            size.flatten().sort().values[round((0.25 if "output" in name else 0.5) * size.numel())]
        )
        mask[name] = (size >= lowest).float()
    expected = {
        "ticket": train(point, mask, "1", range(40)), "twin": train(point, mask, "1.1", range(40)),
    }  # fmt: skip
    for branch, state in expected.items():
        ended, kept = trainer.final(found[1].results[branch].job)
        assert all(torch.equal(kept[name], mask[name].bool()) for name in prunable)
        for name, value in state.items():
            assert torch.allclose(ended[name], value, atol=1e-4), (branch, name)
    rewound = trainer.final(found[0].results["rewound"].job)[0]
    for name, value in train(point, {}, "0", range(40)).items():
        assert torch.allclose(rewound[name], value, atol=1e-4), name


ALL = tuple(name for name in BRANCHES if name not in SCRATCH)


def test_all_branches_train_on_the_whole_schedule(spec: TicketSpec) -> None:
    level_0, level_1 = jobs_of(replace(spec, branches=ALL))
    for job in [*level_0.values(), *level_1.values()]:
        assert (job.first, job.last) == (0, 40)
    dense, rewound, twin = level_0.values()
    point = dense.at(7)
    assert rewound.start == twin.start == level_1["ticket"].start == point
    assert replace(twin, order=0) == rewound != dense
    on = jobs_of(replace(spec, branches=ALL, restart_schedule=False))
    assert on[0]["dense"].digest == dense.digest
    assert on[1]["ticket"].mask == level_1["ticket"].mask
    same_jobs = {name for name, job in on[1].items() if job == level_1[name]}
    assert same_jobs == {"reinit"}


def test_records_count_a_runs_own_steps(found: list[LevelResult]) -> None:
    """So a restarted ticket takes no more steps than the dense run, and may match it."""
    for level in found:
        for row in level.records:
            assert (row["steps"], row["rewind_step"]) == (40, 7)
            assert level.results[row["branch"]].training.curves.step == [10, 20, 30, 40]


def test_early_mask_is_that_of_the_rewind_point(spec: TicketSpec, found: list[LevelResult]) -> None:
    on = find_tickets(replace(spec, predictors=True, restart_schedule=False), found[0].trainer)
    for level, other in zip(found, on, strict=True):
        row, expected = level.records[0], other.records[0]
        names = [name for name in row if name.startswith("rewind_")]
        assert len(names) > 2
        assert {n: row[n] for n in names} == {n: expected[n] for n in names}
    assert row["rewind_mask_overlap"] < 1


def test_ticket_file_names_the_rewind_point(found: list[LevelResult], tmp_path: Path) -> None:
    steps = {}
    for branch in ("ticket", "reinit", "lr_rewind", "twin"):
        found[1].ticket_of(branch).save(tmp_path / branch)
        ticket = load_ticket(tmp_path / branch)
        assert ticket.spec.restart_schedule
        steps[branch] = ticket.rewind_step
    assert steps == {"ticket": 7, "reinit": 0, "lr_rewind": 7, "twin": 7}
    assert found[0].ticket.rewind_step == 0


def test_at_rewind_point_0_it_changes_nothing(spec: TicketSpec) -> None:
    plain = resolve(replace(spec, rewind=0, restart_schedule=False))
    assert resolve(replace(spec, rewind=0)) == plain
    assert resolve(replace(spec, rewind="0.1%")).digest() == plain.digest()
    assert resolve(spec).digest() != resolve(replace(spec, restart_schedule=False)).digest()


def test_restarted_at_the_end_the_first_ticket_is_a_rewound_learning_rate(spec: TicketSpec) -> None:
    late = jobs_of(replace(spec, rewind="100%"))[1]["ticket"]
    assert late == jobs_of(replace(spec, rewind=0))[1]["lr_rewind"]


# Methods that prune at other times


def test_changes_in_training_are_times_of_the_restarted_schedule(spec: TicketSpec) -> None:
    for restart, begin in ((True, "0it"), (False, "7it")):
        during = replace(spec, prune=PruneSpec(when="during"), branches=("ticket",),
                         restart_schedule=restart)  # fmt: skip
        prune = resolve(during).prune
        assert isinstance(prune, PruneDuring)
        assert (prune.begin, prune.end) == (begin, "30it")


@pytest.mark.parametrize("when", ["during", "never"])
def test_masks_are_found_from_the_end_on_where_the_schedule_restarts(
    when: str, spec: TicketSpec
) -> None:
    prune = NEVER if when == "never" else PruneSpec(when="during")
    late = replace(spec, prune=prune, rewind="100%", branches=("ticket",))
    assert (jobs_of(late)[1]["ticket"].first, jobs_of(late)[1]["ticket"].last) == (0, 40)
    with pytest.raises(SpecError, match=r"^rewind: must come before the end of training"):
        resolve(replace(late, restart_schedule=False))


def test_learned_masks_train_on_the_whole_schedule_and_their_controls_not_at_all(
    spec: TicketSpec, trainer: Trainer
) -> None:
    learned = replace(spec, model=ModelSpec(widths=(8,)), prune=NEVER,
                      branches=("ticket", "reinit", "random_mask", "trained"))  # fmt: skip
    level = list(find_tickets(learned, trainer))[1]
    steps = {row["branch"]: row["steps"] for row in level.records}
    assert steps == {"ticket": 40, "reinit": 0, "random_mask": 0, "trained": 40}


def test_mask_found_before_training_is_of_the_rewind_point(
    spec: TicketSpec, trainer: Trainer
) -> None:
    before = replace(spec, prune=PruneSpec(when="before", score="magnitude"), branches=("ticket",))
    masks = [
        list(find_tickets(replace(before, restart_schedule=restart), trainer))[1].mask
        for restart in (True, False)
    ]
    assert same(*masks)
