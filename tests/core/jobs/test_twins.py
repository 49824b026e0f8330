"""Twins: a run once more, from the same start and under the same mask, in another data order."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import jobs_of, same, textbook, timeless

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, data, find_tickets, models
from lth_core.data.augment import draws
from lth_core.jobs.recipes import Full, Job
from lth_core.masks import State, masked
from lth_core.measures.stability import Barrier
from lth_core.models.dropout import Dropout
from lth_core.results import LevelResult
from lth_core.seeds import generator
from lth_core.train.batches import Order

CPU = torch.device("cpu")
TWIN = ("ticket", "twin")


@pytest.fixture(scope="module")
def spec(small: TicketSpec) -> TicketSpec:
    return replace(small, branches=TWIN, levels=1)


@pytest.fixture(scope="module")
def found(spec: TicketSpec, trainer: Trainer) -> list[LevelResult]:
    return list(find_tickets(spec, trainer))


def of(level: LevelResult) -> tuple[Job, Job]:
    """A level's run from the rewind point on, and its twin."""
    one = "ticket" if level.level else "rewound"
    return level.results[one].job, level.results["twin"].job


@pytest.mark.parametrize("when", ["after", "before"])
def test_twin_is_the_ticket_in_all_but_its_data_order(when: str, spec: TicketSpec) -> None:
    for level in jobs_of(replace(spec, prune=PruneSpec(when=when), levels=2))[1:]:
        assert level["twin"].order == 1
        assert replace(level["twin"], order=0) == level["ticket"] != level["twin"]
        assert level["twin"].mask == level["ticket"].mask


@pytest.mark.parametrize("rewind", [7, 40])
def test_both_copies_of_the_dense_network_begin_at_the_rewind_point(
    rewind: int, spec: TicketSpec
) -> None:
    jobs = jobs_of(replace(spec, rewind=rewind))[0]
    assert list(jobs) == ["dense", "rewound", "twin"]
    dense, rewound, twin = jobs.values()
    assert (rewound.first, rewound.last, rewound.level, rewound.order) == (rewind, 40, 0, 0)
    assert rewound.start == dense.at(rewind)
    assert rewound.mask == Full() == dense.mask
    assert (rewound.train, rewound.data, rewound.model, rewound.seed, rewound.dense) == (
        dense.train, dense.data, dense.model, 0, dense,
    )  # fmt: skip
    assert twin == replace(rewound, order=1)
    assert len({dense, rewound, twin}) == 3


def test_rewound_to_initialization_the_dense_run_is_the_first_copy(spec: TicketSpec) -> None:
    jobs = jobs_of(replace(spec, rewind=0))[0]
    assert list(jobs) == ["dense", "twin"]
    assert jobs["twin"] == replace(jobs["dense"], order=1)


def test_dense_run_has_copies_only_where_the_twin_is_asked_for(small: TicketSpec) -> None:
    assert list(jobs_of(small)[0]) == ["dense"]
    assert list(jobs_of(replace(small, branches=TWIN, levels=0))[0]) == ["dense", "rewound", "twin"]


def test_copies_differ_in_data_order_alone_and_the_dense_run_in_its_optimizer_too(
    spec: TicketSpec, trainer: Trainer
) -> None:
    """On one order of the data the copies are one network, and the dense run is another."""
    dense, rewound, twin = (
        result.job for result in next(find_tickets(spec, trainer)).results.values()
    )
    assert same(trainer.final(replace(twin, order=0))[0], trainer.final(rewound)[0])
    assert rewound.run == dense.run
    assert not same(trainer.final(rewound)[0], trainer.final(dense)[0])


def test_twins_start_from_one_state_and_part_with_the_first_step(
    found: list[LevelResult], trainer: Trainer
) -> None:
    point = trainer.final(found[0].results["dense"].job.at(7))[0]  # type: ignore[arg-type]
    for level in found:
        job, twin = of(level)
        assert same(trainer.start(twin), point)
        mask = trainer.final(twin)[1]
        assert same(mask, trainer.final(job)[1])
        first, of_twin = (trainer.final(replace(j, last=8))[0] for j in (job, twin))
        assert not same(first, of_twin)
        # In the first step Adam moves no weight by more than its rate, wherever it comes from.
        assert all((first[n] - of_twin[n]).abs().max() < 0.1 for n in mask)
        assert not same(trainer.final(job)[0], trainer.final(twin)[0])
        assert level.results["twin"].training.curves.step == [10, 20, 30, 40]


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.slow
def test_twins_train_as_the_textbook_does_on_their_own_batches(
    level: int, spec: TicketSpec, trainer: Trainer
) -> None:
    """Augmented, with a new optimizer, and with the other data order written out here."""
    augmented = replace(spec, data=DataSpec(augment="crop_flip"))
    for job in of(list(find_tickets(augmented, trainer))[level]):
        ended, mask = trainer.final(job)
        dataset = data.load(job.data, CPU)
        model = models.build(job.model, dataset.shape, 10, torch.Generator()).train()
        model.load_state_dict(masked(trainer.start(job), mask))
        for name, value in textbook(job, model, mask, dataset).items():
            assert torch.allclose(ended[name], value, atol=1e-4), name


def test_twins_are_deterministic(found: list[LevelResult], spec: TicketSpec) -> None:
    torch.rand(3)
    for one, again in zip(found, find_tickets(spec, Trainer()), strict=True):
        rows = [timeless(row) for row in again.records]
        assert rows == [timeless(row) for row in one.records]
        assert same(*(level.trainer.final(of(level)[1])[0] for level in (one, again)))


@pytest.mark.parametrize(
    ("level", "order", "replay", "run"),
    [
        (0, 0, False, "0"), (3, 0, False, "3"), (3, 1, False, "3.1"), (0, 1, False, "0.1"),
        (3, 2, False, "3.2"), (3, 0, True, "0"), (3, 1, True, "0.1"), (31, 0, False, "31"),
    ],
)  # fmt: skip
def test_runs_are_named_by_level_and_order(
    level: int, order: int, replay: bool, run: str, spec: TicketSpec
) -> None:
    job = jobs_of(replace(spec, train=replace(spec.train, replay_order=replay)))[1]["ticket"]
    assert replace(job, level=level, order=order).run == run


def test_run_of_order_0_draws_what_its_level_alone_drew_before() -> None:
    """So trainings without twins are the same numbers as when levels were all there was."""
    order = Order(examples=30, batch_size=7, seed=5, run="3", augment="crop_flip")
    indices, drawn = order.epoch(2)
    assert torch.equal(indices, torch.randperm(30, generator=generator(5, "order", 3, 2)))
    assert torch.equal(drawn, draws("crop_flip", 30, generator(5, "augment", 3, 2)))
    assert indices[:6].tolist() == [14, 16, 27, 12, 11, 6]


class Observation(Trainer):
    """Keeps the networks that it trains."""

    def network(self, job: Job, state: State) -> nn.Module:
        self.networks = [*getattr(self, "networks", []), super().network(job, state)]
        return self.networks[-1]


def test_twin_drops_other_units(spec: TicketSpec) -> None:
    """Each network drops what its own run does, the twin from the rewind point on."""
    trainer = Observation()
    dropping = replace(spec, model=ModelSpec(widths=(32,), dropout=0.5))
    list(find_tickets(dropping, trainer))
    layers = [m for net in trainer.networks for m in net.modules() if isinstance(m, Dropout)]
    drawn_last = [(run, step) for _, _, run, _, step in (layer._steps[0] for layer in layers)]
    assert drawn_last == [("0", 39), ("0", 39), ("0.1", 39), ("1", 39), ("1.1", 39)]


# What is recorded of them


def test_barriers_are_recorded_of_twins_alone(found: list[LevelResult]) -> None:
    for level in found:
        rows = {row["branch"]: row for row in level.records}
        assert list(rows) == (["ticket", "twin"] if level.level else ["dense", "rewound", "twin"])
        assert {"test_barrier", "train_barrier"} <= set(rows["twin"])
        assert [row["steps"] for row in rows.values()] == (
            [33, 33] if level.level else [40, 33, 33]
        )
        assert set(rows["twin"]) - set(rows[level.branch]) == {"test_barrier", "train_barrier"}
        assert all(-1 <= rows["twin"][name] <= 1 for name in ("test_barrier", "train_barrier"))
        assert rows["twin"]["mask_overlap"] == 1
        assert rows["twin"]["training_digest"] != rows[level.branch]["training_digest"]


def test_barrier_is_between_the_twins_of_one_level(
    found: list[LevelResult], trainer: Trainer
) -> None:
    """With as few points as there may be: the ends, and their middle."""
    for level in found:
        three = replace(level.spec, stability=replace(level.spec.stability, points=3))
        row = replace(level, spec=three).records[-1]
        job, twin = of(level)
        one, two = (trainer.final(j)[0] for j in (job, twin))
        errors = []
        for state in (one, {name: (one[name] + two[name]) / 2 for name in one}, two):
            model, dataset = trainer.network(job, state).eval(), trainer.data(job)
            with torch.no_grad():
                y = model(dataset.normalize(dataset.test.x)).argmax(1)
            errors.append(float((y != dataset.test.y).double().mean()))
        expected = max(errors) - (errors[0] + errors[2]) / 2
        assert row["test_barrier"] == pytest.approx(expected, abs=0.003)
        *_, first, second = level.records
        assert errors[0] == pytest.approx(1 - first["final_test_accuracy"], abs=1e-9)
        assert errors[2] == pytest.approx(1 - second["final_test_accuracy"], abs=1e-9)


def test_store_of_a_version_without_the_first_copy_trains_it_alone_and_measures_anew(
    spec: TicketSpec,
) -> None:
    trainer, alone = Trainer(), replace(spec, levels=0)
    ((dense, _, twin),) = [jobs.values() for jobs in jobs_of(alone)]
    trainer([dense, twin])
    earlier = trainer.measured(Barrier(one=dense, other=twin, stability=spec.stability))
    (level,) = find_tickets(alone, trainer)
    reused = {branch: result.reused for branch, result in level.results.items()}
    assert reused == {"dense": True, "rewound": False, "twin": True}
    assert level.records[-1]["train_barrier"] != earlier["train_barrier"]


def test_no_barrier_where_one_rewinds_to_the_end(spec: TicketSpec, trainer: Trainer) -> None:
    """Nothing is trained, so the twins are one network."""
    for level in find_tickets(replace(spec, rewind="100%"), trainer):
        job, twin = of(level)
        row = level.records[-1]
        assert row["steps"] == 0
        assert (row["test_barrier"], row["train_barrier"]) == (0, 0)
        assert same(trainer.final(job)[0], trainer.final(twin)[0])
