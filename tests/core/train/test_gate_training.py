"""The training of gates: it changes gates and running statistics, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_checkpoint import After, kept, searched
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from toys import jobs_of, same
from watched import Watch, watch

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec
from lth_core.errors import PreemptedError
from lth_core.jobs.recipes import Job
from lth_core.masks import State
from lth_core.models.gates import GATE
from lth_core.spec import PruneGates
from lth_core.store import Store
from lth_core.train.batches import Order
from lth_core.train.loop import state_of
from lth_core.train.masking.gates import Gates

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def spec_of(prune: dict[str, Any] | None = None, **fields: Any) -> TicketSpec:
    gates = {"when": "gates", "structure": "channels", "scope": "global", "budget": {"flops": 0.6},
             "gate_steps": 12, "gate_every": 4, "gate_batch_size": 32, **(prune or {})}  # fmt: skip
    given: dict[str, Any] = {
        "data": DataSpec(fraction=0.2), "model": ModelSpec(name="resnet-8", width=0.25),
        "train": TrainSpec(steps=10, evaluate_every=10, batch_size=32), "levels": 1,
        "prune": PruneSpec(**gates), "branches": ("ticket",), **fields,
    }  # fmt: skip
    return TicketSpec(**given)


def gate_job(spec: TicketSpec) -> Job:
    return jobs_of(spec)[0]["gates"]


@pytest.fixture(scope="module")
def trained() -> tuple[Job, State, State, Watch]:
    """A training of gates: the job, its start and end, and its steps."""
    job, trainer = gate_job(spec_of({"gate_lr": 0.2})), Trainer()
    return job, trainer.start(job), trainer.final(job)[0], watch(job)


@pytest.mark.slow
def test_weights_biases_and_norms_stay_bit_for_bit_and_running_statistics_change(
    trained: tuple[Job, State, State, Watch],
) -> None:
    _, start, end, _ = trained
    assert start.keys() == end.keys()
    for name in start:
        changes = name.endswith((GATE, *STATISTICS))
        assert torch.equal(start[name], end[name]) != changes, name


def test_every_gate_starts_at_one_and_stays_in_zero_to_one(
    trained: tuple[Job, State, State, Watch],
) -> None:
    _, start, _, seen = trained
    assert all((start[name] == 1).all() for name in start if name.endswith(GATE))
    gates = [torch.cat([s[n] for n in s if n.endswith(GATE)]) for s in seen.after]
    assert all(g.min() >= 0 and g.max() <= 1 for g in gates)
    assert any((g == 0).any() for g in gates)
    assert any((g == 1).any() and (g < 1).any() for g in gates)


@pytest.mark.slow
def test_training_of_gates_is_adam_on_the_loss_and_the_penalty_then_a_clamp(
    trained: tuple[Job, State, State, Watch],
) -> None:
    """As a textbook writes it: the penalty in the loss, for autograd."""
    job, start, _, seen = trained
    prune, dataset, trainer = job.finds, Trainer().data(job), Trainer()
    assert isinstance(prune, PruneGates)
    model = trainer.network(job, start)
    gates = [p for n, p in model.named_parameters() if n.endswith(GATE)]
    optimizer = torch.optim.Adam(gates, lr=0.2)
    order = Order(len(dataset.train), 32, job.seed, "0")
    for step, index, _ in order.batches(0, 12, torch.device("cpu")):
        optimizer.zero_grad()
        loss = cross_entropy(
            model(dataset.normalize(dataset.train.x[index])), dataset.train.y[index]
        )
        mean = torch.cat(gates).abs().mean()
        (loss + prune.penalty * (mean - prune.keep_share) ** 2).backward()
        optimizer.step()
        with torch.no_grad():
            for gate in gates:
                gate.clamp_(0, 1)
        for name, gate in model.named_parameters():
            assert torch.allclose(gate, seen.after[step][name], atol=1e-4), (step, name)


def masking(
    keep_share: float = 0.5, penalty: float = 0.5, sizes: tuple[int, ...] = (4, 6)
) -> Gates:
    """Gates of two layers, without their network."""
    model = nn.Module()
    for number, size in enumerate(sizes):
        norm = nn.BatchNorm2d(size)
        norm.register_parameter("gate", nn.Parameter(torch.ones(size)))
        model.add_module(f"norm{number}", norm)
    spec = PruneSpec(when="gates", structure="channels", keep_share=keep_share, penalty=penalty)
    return Gates(model, {}, spec)


def test_gates_are_clamped_to_zero_and_one_after_each_step() -> None:
    gates = masking()
    first, second = gates.trained()
    first.data, second.data = torch.tensor([-0.3, 0.0, 0.4, 1.7]), torch.full((6,), 1.0)
    with torch.no_grad():
        gates.after_step()
    assert first.tolist() == pytest.approx([0, 0, 0.4, 1])
    assert second.tolist() == [1] * 6


def penalty_at(gates: list[Tensor], keep_share: float, penalty: float) -> float:
    values = torch.cat([g.double() for g in gates])
    return float(penalty * (values.abs().mean() - keep_share) ** 2)


@pytest.mark.parametrize("keep_share", [0.1, 0.9])
def test_gradient_of_the_penalty_is_that_of_finite_differences(keep_share: float) -> None:
    gates = masking(keep_share, penalty=0.7)
    trained = list(gates.trained())
    stream = torch.Generator().manual_seed(1)
    for gate in trained:
        gate.data.uniform_(0.1, 1, generator=stream)
        gate.grad = torch.full_like(gate, 3.0)
    with torch.no_grad():
        assert gates.before_step(0, torch.optim.Adam(trained))
    h = 1e-4
    for number, gate in enumerate(trained):
        for i in range(len(gate)):
            sides = []
            for step in (h, -h):
                moved = [g.detach().double() for g in trained]
                moved[number][i] += step
                sides.append(penalty_at(moved, keep_share, 0.7))
            slope = (sides[0] - sides[1]) / (2 * h)
            assert gate.grad is not None
            assert float(gate.grad[i]) - 3 == pytest.approx(slope, rel=1e-3)


def test_gate_at_zero_has_no_slope_of_the_penalty() -> None:
    gates = masking()
    first, second = gates.trained()
    first.data.zero_()
    for gate in (first, second):
        gate.grad = torch.zeros_like(gate)
    with torch.no_grad():
        gates.before_step(0, torch.optim.Adam([first, second]))
    assert first.grad is not None
    assert (first.grad == 0).all()


def chosen(evaluations: list[tuple[int, float]]) -> int:
    """The evaluation whose gates are kept, of those with so many open gates of 10, and accuracy.

    The first gate has the evaluation's number over 100, so that none are alike.
    """
    gates = masking(keep_share=0.5)
    first, second = gates.trained()
    for number, (open_gates, accuracy) in enumerate(evaluations, start=1):
        values = torch.zeros(10)
        values[:open_gates] = 0.5
        values[0] = number / 100
        first.data, second.data = values[:4].clone(), values[4:].clone()
        gates.after_evaluation(accuracy)
    with torch.no_grad():
        first.fill_(0.77)
        gates.finish()
    return round(100 * first.tolist()[0])


@pytest.mark.parametrize(
    ("evaluations", "expected"),
    [
        ([(9, 0.9), (5, 0.3), (4, 0.4), (3, 0.35)], 3),  # the first is too open
        ([(5, 0.3)], 1),  # exactly the share is few enough
        ([(6, 0.3), (6, 0.9), (7, 0.1)], 3),  # none is: the last
        ([(5, 0.0), (9, 0.9)], 1),  # accuracy 0 counts
        ([(5, 0.4), (5, 0.4)], 1),  # of equals the first
        ([(9, 0.9), (2, 0.1), (9, 1.0)], 2),
    ],
)
def test_gates_kept_are_of_highest_validation_accuracy_among_few_enough_else_the_last(
    evaluations: list[tuple[int, float]], expected: int
) -> None:
    assert chosen(evaluations) == expected


def test_choice_is_by_validation_examples_not_by_test_examples() -> None:
    """Validation and test accuracies differ, and each evaluation is few enough."""
    job, trainer = (
        gate_job(spec_of({"gate_lr": 0.05, "gate_steps": 20, "gate_every": 2})),
        Trainer(),
    )
    finds = job.finds
    assert isinstance(finds, PruneGates)
    job = replace(job, finds=replace(finds, keep_share=0.999))
    seen: list[float] = []

    class Noted(Gates):
        def after_evaluation(self, accuracy: float | None) -> None:
            seen.append(float(accuracy or 0))
            super().after_evaluation(accuracy)

    trainer._masking = lambda job, model, mask, *starts: Noted(model, mask, finds)  # type: ignore[method-assign]
    (result,) = trainer([job])
    curves = result.training.curves
    assert seen == curves.validation_accuracy != curves.test_accuracy


def test_final_gates_are_those_of_the_chosen_evaluation_and_statistics_the_last(
    trained: tuple[Job, State, State, Watch],
) -> None:
    job, _, end, seen = trained
    curves = Trainer()([job])[0].training.curves
    names = [name for name in end if name.endswith(GATE)]
    shares = [sum(int((seen.after[s - 1][n] != 0).sum()) for n in names) for s in curves.step]
    few = [s <= 0.2 * sum(end[n].numel() for n in names) for s in shares]
    accuracies = [a if f else -1.0 for a, f in zip(curves.validation_accuracy, few, strict=True)]
    best = accuracies.index(max(accuracies)) if any(few) else -1
    state = seen.after[curves.step[best] - 1]
    assert all(torch.equal(end[name], state[name]) for name in names)
    running = [name for name in end if name.endswith(STATISTICS)]
    assert all(torch.equal(end[name], seen.after[-1][name]) for name in running)


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps", [[5, 1, 1], *(pytest.param(s, marks=pytest.mark.long) for s in ([3], [11], [0] * 30))]
)
def test_training_of_gates_that_is_interrupted_gives_the_same_gates_bit_for_bit(
    steps: list[int],
) -> None:
    """With evaluations every second step: gates of an evaluation before the kill may be chosen."""
    spec = spec_of({"gate_lr": 0.2, "gate_every": 2})
    whole, store, times = Store(), Store(), 0
    expected = searched(Trainer(whole, "cpu"), spec)
    job, rows = gate_job(spec), list[dict[str, Any]]()
    for each in [*steps, 1000]:
        trainer = Trainer(store, "cpu")
        # The dense run comes first, of 10 steps.
        done = 0 if trainer._archive.training(jobs_of(spec)[0]["dense"]) else 9
        trainer.ending = After(done + each)  # type: ignore[assignment]
        try:
            rows = searched(trainer, spec)
            break
        except PreemptedError:
            times += 1
            assert len(store.digests("checkpoints")) == 1
    assert times
    assert rows == expected
    assert kept(store) == kept(whole)
    assert same(Trainer(store).final(job)[0], Trainer(whole).final(job)[0])


def test_gates_start_from_the_weights_that_tickets_start_from() -> None:
    spec, trainer = spec_of(rewind="4it"), Trainer()
    first, second = jobs_of(spec)
    start, weights = trainer.start(first["gates"]), trainer.start(second["ticket"])
    assert same({n: v for n, v in start.items() if not n.endswith(GATE)}, weights)
    assert not same(weights, trainer.start(first["dense"]))
    assert state_of(trainer.model(first["gates"])).keys() == start.keys()
