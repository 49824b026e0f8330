"""The error on the straight line between two networks."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from toys import batch_norm_net, features, same

from lth_core import DataSpec, ModelSpec, TicketSpec, Trainer, TrainSpec, data, find_tickets
from lth_core.data import Dataset, Split
from lth_core.jobs.recipes import Job
from lth_core.masks import State
from lth_core.measures.stability import (
    Barrier,
    barrier,
    estimate_statistics,
    interpolate,
    path_errors,
)
from lth_core.models.dropout import Dropout
from lth_core.results import LevelResult
from lth_core.spec import StabilitySpec
from lth_core.train.evaluate import evaluate
from lth_core.train.precision import arithmetic

CPU = torch.device("cpu")
FIVE = StabilitySpec(points=5, renormalize=False)


@pytest.fixture(scope="module", params=["mlp", "batch norm"])
def twins(
    request: pytest.FixtureRequest, small: TicketSpec, normed: TicketSpec, trainer: Trainer
) -> LevelResult:
    """Level 0 of a search: the dense run and its two copies from step 7 on."""
    spec = small if request.param == "mlp" else normed
    return next(find_tickets(replace(spec, branches=("ticket", "twin")), trainer))


def ends(level: LevelResult) -> tuple[Job, State, State]:
    """The two runs, the last of a level: the first one's job, and the final states of both."""
    one, other = [result.job for result in level.results.values()][-2:]
    return one, level.trainer.final(one)[0], level.trainer.final(other)[0]


def follow(level: LevelResult, one: State, other: State, spec: StabilitySpec) -> list[list[float]]:
    job = level.results["dense"].job
    model = level.trainer.network(job, one)
    return [*path_errors(model, level.trainer.data(job), one, other, spec)]


# From one state to another


def test_between_is_linear_in_floats_and_takes_counts_from_the_nearer_end() -> None:
    one = {"w": torch.tensor([0.0, 4.0]), "steps": torch.tensor(10), "on": torch.tensor([True])}
    two = {"w": torch.tensor([8.0, 2.0]), "steps": torch.tensor(20), "on": torch.tensor([False])}
    for share, w in [(0.0, [0, 4]), (0.25, [2, 3.5]), (0.5, [4, 3]), (0.75, [6, 2.5]), (1, [8, 2])]:
        found = interpolate(one, two, share)
        assert found["w"].tolist() == w
        assert int(found["steps"]) == (10 if share < 0.5 else 20)
        assert bool(found["on"]) == (share < 0.5)
    assert one["w"].tolist() == [0, 4]


def test_both_ends_are_the_states_themselves(twins: LevelResult) -> None:
    _, one, other = ends(twins)
    assert same(interpolate(one, other, 0.0), one)
    assert same(interpolate(one, other, 1.0), other)
    assert all(torch.equal(interpolate(one, one, share)[name], one[name]) for name in one
               for share in (0.1, 0.7))  # fmt: skip


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0.5, 0.5, 0.5], 0.0),
        ([0.25, 0.75, 0.25], 0.5),
        ([0.25, 0.75, 0.5, 0.5], 0.375),  # above the mean of the ends, at any point between
        ([0.25, 0.25, 0.75], 0.25),  # half the difference of the ends at least
        ([0.5, 0.25, 0.5], 0.0),
    ],
)
def test_barrier_is_the_highest_error_above_the_mean_of_the_ends(
    errors: list[float], expected: float
) -> None:
    assert barrier(errors) == expected == barrier(errors[::-1])


# Paths


@pytest.mark.parametrize("renormalize", [True, False])
def test_path_to_itself_is_flat(renormalize: bool, twins: LevelResult) -> None:
    job, one, _ = ends(twins)
    for errors in follow(twins, one, one, StabilitySpec(points=4, renormalize=renormalize)):
        assert len(errors) == 4
        assert len(set(errors)) == 1
    measure = Barrier(one=job, other=job, stability=StabilitySpec(points=3))
    assert measure.take(twins.trainer) == {"test_barrier": 0.0, "train_barrier": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("points", [3, 6])
def test_path_begins_and_ends_with_the_two_runs_own_errors(points: int, twins: LevelResult) -> None:
    _, one, other = ends(twins)
    test, train = follow(twins, one, other, StabilitySpec(points=points, renormalize=False))
    assert len(test) == len(train) == points
    rows = {row["branch"]: row["final_test_accuracy"] for row in twins.records}
    assert (test[0], test[-1]) == (1 - rows["rewound"], 1 - rows["twin"])
    for state, error in [(one, train[0]), (other, train[-1])]:
        assert error == pytest.approx(wrong(twins, state, "train"), abs=1e-12)


def wrong(level: LevelResult, state: State, split: str) -> float:
    """The error of one state, all examples at once."""
    job = level.results["dense"].job
    dataset = level.trainer.data(job)
    model = level.trainer.network(job, state).eval()
    part: Split = getattr(dataset, split)
    with torch.no_grad():
        return float((model(dataset.normalize(part.x)).argmax(1) != part.y).double().mean())


def test_points_lie_evenly_on_the_line_of_the_weights(small: TicketSpec, trainer: Trainer) -> None:
    """Against a forward pass written out, of weights mixed by hand."""
    level = next(find_tickets(replace(small, branches=("ticket", "twin")), trainer))
    job, one, other = ends(level)
    dataset = trainer.data(job)

    def error(part: Split, share: float) -> float:
        x = dataset.normalize(part.x).flatten(1)
        for layer in ("fc1", "fc2", "output"):
            w, b = ((1 - share) * one[f"{layer}.{n}"] + share * other[f"{layer}.{n}"]
                    for n in ("weight", "bias"))  # fmt: skip
            x = linear(x, w, b)
            x = x.relu() if layer != "output" else x
        return float((x.argmax(1) != part.y).double().mean())

    test, train = follow(level, one, other, FIVE)
    shares = (0, 0.25, 0.5, 0.75, 1)
    assert test == pytest.approx([error(dataset.test, share) for share in shares], abs=0.003)
    assert train == pytest.approx([error(dataset.train, share) for share in shares], abs=0.001)
    assert len(set(train)) > 3
    taken = Barrier(one=job, other=level.results["twin"].job, stability=FIVE).take(trainer)
    assert taken == {"test_barrier": barrier(test), "train_barrier": barrier(train)}


def permuted(state: State, seed: int) -> State:
    """The same function, its hidden units in another order."""
    stream, state = torch.Generator().manual_seed(seed), dict(state)
    for layer, following in (("fc1", "fc2"), ("fc2", "output")):
        order = torch.randperm(len(state[f"{layer}.bias"]), generator=stream)
        for name in (f"{layer}.weight", f"{layer}.bias"):
            state[name] = state[name][order]
        state[f"{following}.weight"] = state[f"{following}.weight"][:, order]
    return state


def test_one_function_with_its_units_permuted_lies_behind_a_barrier(
    search: list[LevelResult], trainer: Trainer
) -> None:
    state = trainer.final(search[0].results["dense"].job)[0]
    for errors in follow(search[0], state, permuted(state, 3), FIVE):
        assert errors[0] == pytest.approx(errors[-1], abs=0.003)
        assert errors[0] < 0.15
        assert barrier(errors) > 0.2


def test_convex_loss_has_no_barrier() -> None:
    """Softmax regression: on the line the loss lies below its chord, and errors with it, nearly."""
    spec = TicketSpec(
        model=ModelSpec(name="toys:linear_net"), train=TrainSpec(lr=0.01, steps=60),
        levels=0, branches=("ticket", "twin"), stability=StabilitySpec(points=9),
    )  # fmt: skip
    level = next(find_tickets(spec))
    job, one, other = ends(level)
    dataset, model = level.trainer.data(job), level.trainer.network(job, one)
    losses = []
    for step in range(9):
        model.load_state_dict(interpolate(one, other, step / 8))
        losses.append(evaluate(model, dataset, dataset.train)[0])
    assert not same(one, other)
    assert all(loss <= losses[0] + (losses[-1] - losses[0]) * step / 8 + 1e-6
               for step, loss in enumerate(losses))  # fmt: skip
    row = level.records[-1]
    assert row["final_test_accuracy"] > 0.85
    # Two of the 449 test examples, four of the 1,213 training examples.
    assert 0 <= row["test_barrier"] < 2.1 / 449
    assert 0 <= row["train_barrier"] < 4.1 / 1213


# Batch norm's statistics


def images(n: int, shape: tuple[int, ...] = (2, 3, 3)) -> Dataset:
    """n training examples, with two channels of unlike pixels."""
    stream = torch.Generator().manual_seed(n)
    x = torch.randint(0, 100, (n, *shape), generator=stream, dtype=torch.uint8)
    x[:, 0] += 100
    part = Split(x, torch.zeros(n, dtype=torch.int64))
    return Dataset(part, part, part, torch.tensor(100.0), torch.tensor(50.0), 2)


def net(kind: type[nn.Module] = nn.Identity) -> nn.Sequential:
    torch_net = batch_norm_net(ModelSpec(), (2, 3, 3), 2)
    assert isinstance(torch_net, nn.Sequential)
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in torch_net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream))
    return nn.Sequential(kind(), torch_net)


def by_hand(model: nn.Sequential, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of what reaches batch norm, each averaged over the parts."""
    inner = model[1]
    with torch.no_grad():
        seen = [inner.conv((x.float() - 100) / 50).double() for x in parts]
    flat = [part.movedim(1, 0).flatten(1) for part in seen]
    means = torch.stack([part.mean(1) for part in flat])
    variances = [((p - p.mean(1, keepdim=True)) ** 2).sum(1) / (p.shape[1] - 1) for p in flat]
    return means.mean(0), torch.stack(variances).mean(0)


@pytest.mark.parametrize("n", [1, 2, 499, 500, 501, 999, 1000, 1001])
@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_averages_over_all_training_examples(n: int, training: bool) -> None:
    dataset, model = images(n), net(partial(Dropout, 0.5, "in")).train(training)  # type: ignore[arg-type]
    norm = model[1].norm
    norm.running_mean.fill_(77.0)
    norm.momentum = 0.03
    weights = {name: value.clone() for name, value in model.named_parameters()}
    estimate_statistics(model, dataset)
    whole = by_hand(model, [dataset.train.x])
    parts = [dataset.train.x] if n < 1000 else [dataset.train.x[: n - 500], dataset.train.x[-500:]]
    mean, variance = by_hand(model, parts)
    assert torch.allclose(norm.running_mean.double(), mean, atol=1e-4)
    assert torch.allclose(norm.running_var.double(), variance, rtol=1e-4)
    assert torch.allclose(mean, whole[0], atol=0.01)  # parts are as good as all at once
    assert torch.allclose(variance, whole[1], rtol=0.01)
    assert norm.momentum == 0.03
    assert all(module.training == training for module in model.modules())
    assert same(dict(model.named_parameters()), weights)


@pytest.mark.parametrize("n", [2, 3, 501, 1001])
def test_no_part_is_a_single_example(n: int) -> None:
    """It would have no variance where there is one value a channel."""
    rows = replace(features(DataSpec()), train=Split(torch.randn(n, 5), torch.zeros(n).long()))
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).train()
    estimate_statistics(model, rows)
    assert torch.isfinite(model[1].running_var).all()


def test_statistics_are_those_of_what_earlier_layers_pass_on() -> None:
    dataset = images(40)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
    estimate_statistics(model, dataset)
    with torch.no_grad():
        seen = model[0](dataset.normalize(dataset.train.x))
        std, mean = torch.std_mean(seen, (0, 2, 3), correction=0, keepdim=True)
        passed = ((seen - mean) / (std**2 + 1e-5).sqrt()).relu()
    assert torch.allclose(model[3].running_mean, passed.mean((0, 2, 3)), atol=1e-5)


def test_without_batch_norm_nothing_is_done() -> None:
    class Unasked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("asked")

    estimate_statistics(nn.Sequential(Unasked(), nn.Linear(2, 2)), images(3))


def test_renormalized_path_forgets_the_statistics_that_its_ends_carry(
    normed: TicketSpec, trainer: Trainer
) -> None:
    level = next(find_tickets(replace(normed, branches=("ticket", "twin")), trainer))
    _, one, other = ends(level)
    spoiled = {**one, "norm.running_mean": one["norm.running_mean"] + 3}
    anew = replace(FIVE, renormalize=True)
    assert follow(level, spoiled, other, anew) == follow(level, one, other, anew)
    assert follow(level, spoiled, other, FIVE) != follow(level, one, other, FIVE)
    # A single part of the training examples, estimated at the middle by hand.
    model = trainer.network(level.results["dense"].job, interpolate(one, other, 0.5))
    dataset = data.load(level.spec.data, CPU)
    estimate_statistics(model, dataset)
    assert follow(level, one, other, anew)[0][2] == 1 - evaluate(model, dataset, dataset.test)[1]


def test_barrier_is_measured_in_the_arithmetic_of_training() -> None:
    spec = TicketSpec(
        model=ModelSpec(widths=(32, 16)),
        train=TrainSpec(lr=0.01, steps=40, evaluate_every=40, precision="bf16"),
        rewind=7, levels=0, branches=("ticket", "twin"), stability=FIVE,
    )  # fmt: skip
    (level,) = find_tickets(spec)
    measured = level.records[-1]["test_barrier"]
    _, *states = ends(level)
    with arithmetic("bf16", CPU):
        test, _ = follow(level, *states, FIVE)
    recorded = [row["final_test_accuracy"] for row in level.records[-2:]]
    assert [1 - test[0], 1 - test[-1]] == pytest.approx(recorded, abs=1e-12)
    assert measured == barrier(test) != barrier(follow(level, *states, FIVE)[0])
