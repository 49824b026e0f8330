"""Jobs of gates, of their controls, and what they cost, without training where that is possible."""

from dataclasses import replace
from typing import Any

import pytest
from toys import jobs_of, same

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.data import DATASETS
from lth_core.errors import SpecError
from lth_core.jobs.recipes import Pruned
from lth_core.lottery import levels
from lth_core.measures.search import TrainingCost
from lth_core.models import template
from lth_core.models.costs import costs_of
from lth_core.models.gates import GATE
from lth_core.resolve import resolve
from lth_core.spec import PruneGates
from lth_core.spec.fields import steps_in

pytestmark = pytest.mark.slow

GATES = {"when": "gates", "structure": "channels", "scope": "global", "budget": {"flops": 0.6},
         "gate_steps": 6, "gate_every": 3, "gate_batch_size": 32}  # fmt: skip
TRAIN = {"steps": 12, "evaluate_every": 6, "batch_size": 32}
PLATEAUS = {"schedule": "multistep", "milestones": ("6it", "9it")}
EXAMPLES = 243 - 24
"""Of a fifth of the digits, without validation."""


def spec_of(
    prune: dict[str, Any], train: dict[str, Any] | None = None, **fields: Any
) -> TicketSpec:
    given = {"levels": 1, "branches": ("ticket",), "model": ModelSpec(name="resnet-8", width=0.25)}
    return TicketSpec(
        data=DataSpec(fraction=0.18), train=TrainSpec(**{**TRAIN, **(train or {})}),
        prune=PruneSpec(**prune), **{**given, **fields},
    )  # fmt: skip


def with_gates(**changes: Any) -> TicketSpec:
    return spec_of({**GATES, **changes})


def gate_digest(spec: TicketSpec) -> str:
    return jobs_of(spec)[0]["gates"].digest


@pytest.mark.parametrize(
    "changes",
    [{"budget": {"flops": 0.3}}, {"budget": {"parameters": 0.5}}, {"scope": "layerwise"},
     {"budget": {}, "fraction": 0.5}],
)  # fmt: skip
def test_gates_are_trained_once_for_all_budgets_and_scopes(changes: dict[str, Any]) -> None:
    assert gate_digest(with_gates(**changes)) == gate_digest(with_gates())


def test_gates_are_trained_once_for_all_levels_branches_and_schedules_of_the_ticket() -> None:
    spec = with_gates()
    others = [
        replace(spec, levels=3),
        replace(spec, branches=("ticket", "scratch_b")),
        replace(spec, train=replace(spec.train, lr=0.5, steps=30)),
        replace(spec, train=replace(spec.train, batch_size=16)),
    ]
    assert {gate_digest(each) for each in [spec, *others]} == {gate_digest(spec)}
    for level in jobs_of(others[0])[1:]:
        mask = level["ticket"].mask
        assert isinstance(mask, Pruned)
        assert mask.of.digest == gate_digest(spec)


@pytest.mark.parametrize(
    "changes",
    [{"keep_share": 0.3}, {"penalty": 0.1}, {"gate_lr": 0.1}, {"gate_steps": 9},
     {"gate_every": 2}, {"gate_batch_size": 16}, {"gate_validation": 30}, {"expand": 1.5}],
)  # fmt: skip
def test_gates_of_another_training_are_others(changes: dict[str, Any]) -> None:
    fields = (
        {"data": DataSpec(fraction=0.18, validation=20)} if "gate_validation" in changes else {}
    )
    spec = replace(with_gates(), **fields)
    assert gate_digest(replace(with_gates(**changes), **fields)) != gate_digest(spec)


def test_weights_under_the_gates_are_those_of_the_same_seed_without_gates() -> None:
    for spec in (with_gates(), replace(with_gates(), rewind="5it")):
        trainer, (first, _) = Trainer(), jobs_of(spec)
        start = trainer.start(first["gates"])
        plain = trainer.start(
            replace(first["dense"], start=first["dense"].at(steps_in(spec.rewind)))
        )
        assert same({n: v for n, v in start.items() if not n.endswith(GATE)}, plain)
        assert all((v == 1).all() for n, v in start.items() if n.endswith(GATE))


def test_gates_have_held_out_examples_that_the_structure_is_trained_on() -> None:
    """45,000 of CIFAR-10 for the gates and 5,000 to choose, all 50,000 for the structure."""
    spec = replace(with_gates(gate_validation=30, gate_steps="2ep"), data=DataSpec(validation=0))
    first, second = jobs_of(spec)
    assert first["gates"].data == replace(second["ticket"].data, validation=30)
    assert second["ticket"].data.validation == 0
    examples = DATASETS["digits"][1]
    assert first["gates"].last == 2 * -(-(examples - 30) // 32)
    assert len(Trainer().data(first["gates"]).train) == examples - 30


@pytest.mark.parametrize(("share", "steps"), [(0.5, 24), (0.3, 40), (0.7, 17), (1.0, 12)])
def test_scratch_b_trains_for_the_dense_runs_flops(share: float, steps: int) -> None:
    """12 / 0.7 is 17.14, 6 / 0.7 is 8.57, 9 / 0.7 is 12.86."""
    spec = spec_of({**GATES, "budget": {"flops": share}}, PLATEAUS,
                   branches=("ticket", "scratch_e", "scratch_b"))  # fmt: skip
    jobs = jobs_of(spec)[1]
    long, same_epochs = jobs["scratch_b"], jobs["scratch_e"]
    assert (long.first, long.last) == (0, steps)
    assert long.train.steps == f"{steps}it"
    assert long.train.milestones == tuple(f"{round(m / share)}it" for m in (6, 9))
    assert long.train == replace(
        same_epochs.train, steps=long.train.steps, milestones=long.train.milestones
    )
    assert (same_epochs.first, same_epochs.last) == (0, 12)
    assert same_epochs.train == jobs["ticket"].train
    assert long.start == same_epochs.start
    assert long.mask == same_epochs.mask == jobs["ticket"].mask


@pytest.mark.parametrize("when", ["after", "before", "gates"])
def test_scratch_b_of_a_later_level_trains_for_the_dense_runs_flops_too(when: str) -> None:
    prune = GATES if when == "gates" else {"when": when, "structure": "channels",
                                           "scope": "global", "budget": {"flops": 0.6}}  # fmt: skip
    levels = jobs_of(spec_of(prune, levels=2, branches=("ticket", "scratch_b")))
    assert [jobs["scratch_b"].last for jobs in levels[1:]] == [20, 33]  # 12 / 0.6, 12 / 0.36


def test_scratch_branches_train_on_the_whole_schedule_after_a_rewind_point() -> None:
    spec = spec_of({**GATES}, PLATEAUS, rewind="5it", branches=("ticket", "scratch_e", "scratch_b"))
    jobs = jobs_of(spec)[1]
    assert [(jobs[b].first, jobs[b].last) for b in jobs] == [(5, 12), (0, 12), (0, 20)]


@pytest.fixture(scope="module")
def expanded() -> tuple[TicketSpec, list[dict[str, Any]], Trainer]:
    trainer = Trainer()
    spec = spec_of({**GATES, "expand": 2.0}, branches=("ticket", "scratch_b", "random_mask"))
    return spec, [row for level in find_tickets(spec, trainer) for row in level.records], trainer


@pytest.mark.slow
def test_budget_and_records_of_a_widened_network_are_shares_of_the_one_that_is_not(
    expanded: tuple[TicketSpec, list[dict[str, Any]], Trainer],
) -> None:
    spec, rows, _ = expanded
    dense, gates, *others = rows
    whole = costs_of(template(spec.model, (1, 8, 8), 10), (1, 8, 8))
    wide = costs_of(template(replace(spec.model, width=0.5), (1, 8, 8), 10), (1, 8, 8))
    assert dense["flops"] == dense["dense_flops"] == whole.flops({})
    assert gates["flops"] == wide.flops({}) > dense["flops"]
    assert gates["kept_parameters"] == wide.parameters({})
    for row in rows:
        assert row["dense_flops"] == whole.flops({})
        assert row["parameters"] == whole.parameters({})
        assert row["weights_prunable"] == dense["weights_prunable"]
        assert row["density"] == row["weights_kept"] / dense["weights_prunable"]
    for row in others:
        assert 0.5 < row["flops"] / whole.flops({}) <= 0.6
        assert row["kept_parameters"] < row["parameters"]
        if row["branch"] != "random_mask":
            assert row["layer_density"]["stem"] == 2  # its channels have no gates, so all are kept


@pytest.mark.slow
def test_ticket_of_a_widened_network_belongs_to_no_dense_run_of_other_shapes(
    expanded: tuple[TicketSpec, list[dict[str, Any]], Trainer],
) -> None:
    spec, rows, trainer = expanded
    jobs = jobs_of(spec)[1]
    assert all(job.dense is None and job.model.width == 0.5 for job in jobs.values())
    for row in rows[2:]:
        assert row["travel"] is not None
        assert row["travel_inside"] is row["travel_outside"] is None
    ticket = trainer.ticket(resolve(spec), 1, "ticket", jobs["ticket"])
    model = ticket.model()
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == {
        n: tuple(p.shape) for n, p in template(replace(spec.model, width=0.5), (1, 8, 8), 10)
        .named_parameters()
    }  # fmt: skip


@pytest.mark.slow
def test_structure_of_a_seed_is_one_and_another_seed_has_another() -> None:
    trainer = Trainer()
    specs = [with_gates(), with_gates(), replace(with_gates(), seed=1)]
    digests = []
    for spec in specs:
        *_, level = find_tickets(spec, trainer)
        digests.append(level.records[0]["mask_digest"])
    assert digests[0] == digests[1] != digests[2]


def test_record_of_gates_counts_no_gates_as_parameters() -> None:
    dense, gates = next(find_tickets(replace(with_gates(), levels=0))).records
    assert (dense["branch"], gates["branch"]) == ("dense", "gates")
    assert gates["parameters"] == gates["kept_parameters"] == dense["parameters"]


# Cost of the search


def forward(width: float = 0.25) -> int:
    """FLOPs of ResNet-8 on the digits, by hand: 2 x weights x positions of each convolution."""
    c = round(16 * width)
    first = 64 * (9 * c + 9 * c * c * 2)
    second = 16 * (9 * c * 2 * c + 9 * 4 * c * c + 2 * c * c)
    third = 4 * (9 * 2 * c * 4 * c + 9 * 16 * c * c + 8 * c * c)
    return 2 * (first + second + third + 4 * c * 10)


def search_flops(spec: TicketSpec) -> list[float]:
    """Of the last level's branches."""
    *_, level = find_tickets(spec)
    return [row["search_flops"] for row in level.records]


def seen(steps: int, batch: int = 32, examples: int = EXAMPLES) -> int:
    whole, rest = divmod(steps, -(-examples // batch))
    return whole * examples + rest * batch


AFTER = {"structure": "channels", "scope": "global", "budget": {"flops": 0.6}}


@pytest.mark.slow
def test_search_of_gates_costs_their_training() -> None:
    expected = 3 * forward() * seen(6)
    assert search_flops(replace(with_gates(), branches=("ticket", "random_mask"))) == [expected] * 2
    assert search_flops(with_gates(expand=2.0)) == [3 * forward(0.5) * seen(6)]


@pytest.mark.slow
def test_search_of_trained_structures_costs_the_dense_run_and_every_ticket_before() -> None:
    dense = 3 * forward() * seen(12)
    assert search_flops(spec_of(AFTER)) == [dense]
    assert search_flops(spec_of({**AFTER, "score": "slimming"}, {"norm_penalty": 0.1})) == [dense]
    first, second = list(find_tickets(spec_of(AFTER, levels=2)))[1:]
    ticket = first.records[0]
    assert ticket["train_flops"] == 3 * ticket["flops"] * seen(12)
    assert second.records[0]["search_flops"] == dense + ticket["train_flops"]
    assert search_flops(spec_of({**AFTER, "one_shot": True}, levels=2)) == [dense]


@pytest.mark.slow
def test_search_of_a_mask_that_shrinks_in_training_costs_this_training() -> None:
    during = {"when": "during", "structure": "channels", "fraction": 0.3, "begin": 2, "end": 8}
    whole = 3 * forward() * seen(12)
    spec = replace(spec_of(during), branches=("ticket", "trained"))
    assert search_flops(spec) == [whole] * 2


@pytest.mark.long
def test_search_without_training_costs_the_passes_of_its_score() -> None:
    before = {**AFTER, "when": "before"}
    assert search_flops(spec_of({**before, "score": "random"})) == [0]
    assert search_flops(spec_of({**before, "score": "magnitude"})) == [0]
    snip = 3 * 10 * 10 * forward()  # ten examples of ten classes
    assert search_flops(spec_of({**before, "score": "snip"})) == [snip]
    assert search_flops(spec_of({**before, "score": "snip", "rounds": 2})) == [2 * snip]
    like = {"when": "before", "structure": "channels", "score": "random", "fraction": 0.2}
    assert search_flops(spec_of({**like, "scope": "like:snip"})) == [snip]
    assert search_flops(spec_of({**like, "scope": "like:synflow"})) == [3 * 100 * forward()]


@pytest.mark.slow
def test_search_from_a_rewind_point_costs_the_way_there() -> None:
    before = {**AFTER, "when": "before", "score": "random"}
    assert search_flops(spec_of(before, rewind="5it")) == [3 * forward() * seen(5)]


class Counting(Trainer):
    """Takes every training to be done: its cost is read off its spec."""

    def training_cost(self, job: Any) -> tuple[float, float]:
        sizes, positions = DATASETS[job.data.name][1:4], costs_of
        examples, shape = int(sizes[0] - job.data.validation), sizes[2]
        flops = positions(template(replace(job.model, gates=False), shape, 10), shape, {}).flops({})
        epochs = steps_in(job.train.steps) / -(-examples // job.train.batch_size)
        return 3.0 * flops * epochs * examples, 0.0


@pytest.mark.parametrize("expand", [1.0, 1.25])
@pytest.mark.parametrize(
    "name", [pytest.param("resnet-20", marks=pytest.mark.slow), pytest.param("vgg-16", marks=pytest.mark.long),
             pytest.param("resnet-56", marks=pytest.mark.long)]
)  # fmt: skip
def test_search_by_gates_costs_under_a_tenth_of_a_dense_training(name: str, expand: float) -> None:
    """At the published numbers: 10 epochs of 45,000 images; the dense network has 160 of 50,000."""
    spec = resolve(TicketSpec(
        data=DataSpec(name="cifar10", validation=0), model=ModelSpec(name=name),
        train=TrainSpec(optimizer="sgd", lr=0.1, batch_size=128, steps="160ep"), levels=1,
        branches=("ticket",),
        prune=PruneSpec(when="gates", structure="channels", scope="global", budget={"flops": 0.5},
                        expand=expand, gate_validation=5000),
    ))  # fmt: skip
    first, second = jobs_of(spec)
    cost = Counting()
    searched = TrainingCost(job=second["ticket"]).take(cost)["search_flops"]
    dense = cost.training_cost(first["dense"])[0]
    assert searched == cost.training_cost(first["gates"])[0]
    growth = expand**2 if expand > 1 else 1
    assert searched is not None
    assert searched / dense == pytest.approx(10 * 45 / (160 * 50) * growth, rel=0.06)
    assert searched / dense < 0.1


def test_gates_of_a_spec_hold_what_their_training_needs_alone() -> None:
    job = jobs_of(with_gates())[0]["gates"]
    assert isinstance(job.finds, PruneGates)
    assert job.finds.budget == {}
    assert job.finds.structure == "channels"
    assert job.train.optimizer == "adam"
    assert (job.train.lr, job.train.weight_decay, job.train.schedule) == (0.01, 0, "constant")
    assert (job.first, job.last, job.level) == (0, 6, 0)


def test_training_of_gates_covers_the_embeddings_that_the_ticket_covers() -> None:
    prune = PruneSpec(**{**GATES, "include": ("embed",)})
    first, second = levels(replace(with_gates(), prune=prune))
    assert first["gates"].mask.include == second["ticket"].mask.include == ("embed",)


@pytest.mark.parametrize(("size", "fits"), [(242, False), (32, True), (1, False)])
def test_last_batch_of_one_example_is_refused_for_gates_as_for_weights(
    size: int, fits: bool
) -> None:
    """Batch norm of a map of one position cannot train on it: here 243 examples train gates."""
    spec = with_gates(gate_batch_size=size, gate_steps="1ep", gate_validation=1, expand=1.0)
    data = DataSpec(fraction=244 / 1348, validation=24)
    model = replace(spec.model, name="toys:pooled_net", width=1.0)
    spec = replace(spec, data=data, model=model, prune=replace(spec.prune, budget={}, fraction=0.5))
    if fits:
        resolve(spec)
        return
    with pytest.raises(SpecError, match=r"no last batch of one of 243 training examples") as found:
        resolve(spec)
    assert found.value.field == "prune.gate_batch_size"
