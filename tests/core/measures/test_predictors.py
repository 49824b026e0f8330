"""What the dense run looks like at the rewind point."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.nn.functional import cross_entropy
from toys import jobs_of, same

from lth_core import DataSpec, ModelSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.masks import State
from lth_core.measures.predictors import AtRewind, MaskStability, rewind_distances, top_eigenvalue
from lth_core.seeds import generator

AT_REWIND = {
    f"rewind_{name}"
    for name in ("distance", "cosine", "sign_agreement", "loss", "gradient_norm", "curvature")
}
OF_MASKS = {"rewind_mask_overlap", "rewind_mask_overlap_chance"}


# Two states


def test_distance_cosine_and_signs_by_hand() -> None:
    start = {"a": torch.tensor([[3.0, -4.0]]), "b": torch.tensor([0.0]), "c": torch.tensor([9.0])}
    end = {"a": torch.tensor([[0.0, -4.0]]), "b": torch.tensor([3.0]), "c": torch.tensor([-9.0])}
    mask = {"a": torch.tensor([[True, True]]), "b": torch.tensor([False])}
    assert rewind_distances(start, end, mask) == {
        "rewind_distance": pytest.approx(18**0.5),  # (3, 0, 3)
        "rewind_cosine": pytest.approx(16 / 25),
        "rewind_sign_agreement": pytest.approx(1 / 3),  # 0 has a sign of its own
    }
    turned = {name: -value for name, value in start.items()}
    opposite = rewind_distances(start, turned, mask)
    assert opposite["rewind_cosine"] == pytest.approx(-1)
    assert opposite["rewind_distance"] == pytest.approx(10)
    assert list(rewind_distances(start, start, mask).values()) == [0, pytest.approx(1), 1]


# Curvature


def symmetric(eigenvalues: Sequence[float]) -> Tensor:
    """A matrix of these eigenvalues, rotated."""
    stream = torch.Generator().manual_seed(4)
    n = len(eigenvalues)
    turn, _ = torch.linalg.qr(torch.randn(n, n, generator=stream))
    return turn @ torch.diag(torch.tensor(eigenvalues)) @ turn.T


@pytest.mark.parametrize(
    "eigenvalues",
    [
        [5.0, 1.0, 0.5, 0.0],
        [1.0, -5.0, 2.0, 0.5],
        [3.0, 3.0, -1.0, 0.0],
        [0.0] * 4,
        [1.0, -0.98, 0.1, 0.0],
        [0.98, -1.0, 0.1, 0.0],
    ],
)
def test_curvature_is_the_eigenvalue_of_largest_size_with_its_sign(
    eigenvalues: list[float],
) -> None:
    matrix = symmetric(eigenvalues)
    parameters = [nn.Parameter(torch.randn(2, 1)), nn.Parameter(torch.randn(2))]

    def loss() -> Tensor:
        flat = torch.cat([p.reshape(-1) for p in parameters])
        return flat @ matrix @ flat / 2

    found = top_eigenvalue(loss, parameters, torch.Generator().manual_seed(0))
    assert found == pytest.approx(max(eigenvalues, key=abs), rel=2e-3, abs=1e-6)
    assert all(p.grad is None for p in parameters)


# The dense run at a step, on networks small enough to do by hand

LINEAR = TicketSpec(
    data=DataSpec(name="toys:features", validation=4), model=ModelSpec(name="toys:linear_net"),
    train=TrainSpec(lr=0.05, steps=20, batch_size=8, evaluate_every=10), rewind=6, levels=1,
    branches=("ticket",), predictors=True,
)  # fmt: skip


def at(spec: TicketSpec, step: int, **fields: int) -> AtRewind:
    return AtRewind(dense=jobs_of(spec)[0]["dense"], step=step, **fields)


def test_linear_model_has_the_loss_gradient_and_curvature_of_its_formula() -> None:
    trainer, measure = Trainer(), at(LINEAR, 6)
    taken = measure.take(trainer)
    dense = measure.dense
    state, end = trainer.final(dense.at(6))[0], trainer.final(dense)[0]  # type: ignore[arg-type]
    part = trainer.data(dense).train
    # 16 rows of five numbers; the toy's mean is 0 and its deviation 1.
    x, one = part.x.double(), torch.eye(2, dtype=torch.float64)[part.y]
    w = torch.cat([state["output.weight"].reshape(-1), state["output.bias"]]).double()

    def loss(w: Tensor) -> Tensor:
        logits = x @ w[:10].view(2, 5).T + w[10:]
        return (logits.logsumexp(1) - (logits * one).sum(1)).mean()

    gradient = torch.autograd.functional.jacobian(loss, w)
    eigenvalues = torch.linalg.eigvalsh(hessian(loss, w))
    assert taken["rewind_loss"] == pytest.approx(float(loss(w)), rel=1e-4)
    assert taken["rewind_gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-3)
    assert taken["rewind_curvature"] == pytest.approx(float(eigenvalues[-1]), rel=0.01)
    assert float(eigenvalues[-1]) > 1
    mask = {"output.weight": torch.ones(2, 5, dtype=torch.bool)}
    assert {name: taken[name] for name in rewind_distances(state, end, mask)} == rewind_distances(
        state, end, mask
    )
    assert set(taken) == AT_REWIND


def test_curvature_of_a_small_network_is_that_of_its_hessian(
    small: TicketSpec, trainer: Trainer
) -> None:
    """8x8 images through one hidden layer of two units, 160 parameters; not convex."""
    spec = replace(small, model=ModelSpec(widths=(2,)))
    measure = at(spec, 7)
    taken = measure.take(trainer)
    state = trainer.final(measure.dense.at(7))[0]  # type: ignore[arg-type]
    order = torch.randperm(1213, generator=generator(0, "predictors", 7))[:1000]
    dataset = trainer.data(measure.dense)
    x, y = dataset.normalize(dataset.train.x[order]).flatten(1).double(), dataset.train.y[order]
    names = ["fc1.weight", "fc1.bias", "output.weight", "output.bias"]
    sizes = [state[name].numel() for name in names]

    def loss(flat: Tensor) -> Tensor:
        w1, b1, w2, b2 = flat.split(sizes)
        return cross_entropy((x @ w1.view(2, 64).T + b1).relu() @ w2.view(10, 2).T + b2, y)

    w = torch.cat([state[name].reshape(-1) for name in names]).double()
    eigenvalues = torch.linalg.eigvalsh(hessian(loss, w))
    largest = float(eigenvalues[eigenvalues.abs().argmax()])
    assert float(eigenvalues.min()) < -1e-3
    assert taken["rewind_loss"] == pytest.approx(float(loss(w)), rel=1e-4)
    assert taken["rewind_curvature"] == pytest.approx(largest, rel=0.02)


@pytest.mark.slow
def test_loss_is_without_dropout_and_batch_norm_as_in_training(
    normed: TicketSpec, trainer: Trainer
) -> None:
    for model in (ModelSpec(widths=(8,), dropout=0.9), normed.model):
        measure = at(replace(normed, model=model), 7)
        before = trainer.final(measure.dense.at(7))[0]  # type: ignore[arg-type]
        copy = {name: value.clone() for name, value in before.items()}
        dataset = trainer.data(measure.dense)
        order = torch.randperm(1213, generator=generator(0, "predictors", 7))[:1000]
        some = dataset.train.at(order)
        net = trainer.network(measure.dense, before).train(model == normed.model)
        with torch.no_grad():
            expected = cross_entropy(net(dataset.normalize(some.x)), some.y)
        taken = measure.take(trainer)
        assert taken["rewind_loss"] == pytest.approx(float(expected), rel=1e-5)
        assert same(trainer.final(measure.dense.at(7))[0], copy)  # type: ignore[arg-type]


def test_step_0_is_the_initialization_and_the_last_step_the_end(
    small: TicketSpec, trainer: Trainer
) -> None:
    first, last = (at(small, step).take(trainer) for step in (0, 40))
    assert (last["rewind_distance"], last["rewind_sign_agreement"]) == (0, 1)
    assert last["rewind_cosine"] == pytest.approx(1)
    assert last["rewind_loss"] < first["rewind_loss"] / 2  # type: ignore[operator]
    assert first["rewind_cosine"] < 0.99  # type: ignore[operator]


def test_predictors_depend_on_seed_and_step_and_on_nothing_global(
    small: TicketSpec, trainer: Trainer
) -> None:
    fewer = [at(small, step, examples=40) for step in (5, 7)]
    one = [measure.take(trainer) for measure in fewer]
    torch.rand(5)
    assert [measure.take(Trainer()) for measure in reversed(fewer)] == one[::-1]
    before = torch.random.get_rng_state()
    assert fewer[0].take(trainer) == one[0]
    assert torch.equal(before, torch.random.get_rng_state())
    assert fewer[0].take(trainer)["rewind_loss"] != at(small, 5).take(trainer)["rewind_loss"]
    digests = {m.digest for m in (*fewer, at(small, 5), at(replace(small, seed=1), 5, examples=40))}
    assert len(digests) == 4


# Masks


def largest(weights: State, keep: dict[str, int]) -> dict[str, set[int]]:
    """Places of the largest weights of each layer."""
    return {
        name: set(weights[name].reshape(-1).abs().argsort(descending=True)[:count].tolist())
        for name, count in keep.items()
    }


def masks_of(spec: TicketSpec, trainer: Trainer) -> list[dict[str, float]]:
    rows = [level.records[0] for level in find_tickets(spec, trainer)]
    assert not OF_MASKS & set(rows[0])
    return [{name: row[name] for name in OF_MASKS} for row in rows[1:]]


@pytest.mark.parametrize("one_shot", [False, True])
def test_overlap_is_of_the_largest_weights_at_the_rewind_point_and_at_the_end(
    one_shot: bool, small: TicketSpec, trainer: Trainer
) -> None:
    prune = replace(small.prune, one_shot=one_shot)
    spec = replace(small, prune=prune, branches=("ticket",), predictors=True)
    dense = jobs_of(spec)[0]["dense"]
    states = [trainer.final(job)[0] for job in (dense.at(7), dense)]  # type: ignore[arg-type]
    sizes = {"fc1.weight": 2048, "fc2.weight": 512, "output.weight": 160}
    for level, found in enumerate(masks_of(spec, trainer), start=1):
        share = {"output.weight": 0.75**level}
        keep = {name: round(share.get(name, 0.5**level) * n) for name, n in sizes.items()}
        early, late = (largest(state, keep) for state in states)
        both = sum(len(early[name] & late[name]) for name in sizes)
        expected = both / sum(len(early[name] | late[name]) for name in sizes)
        assert found["rewind_mask_overlap"] == pytest.approx(expected)
        shared = sum(count**2 / sizes[name] for name, count in keep.items())
        chance = shared / (2 * sum(keep.values()) - shared)
        assert found["rewind_mask_overlap_chance"] == pytest.approx(chance)
        assert chance < expected < 1


def test_masks_agree_wholly_at_the_end(small: TicketSpec, trainer: Trainer) -> None:
    spec = replace(small, rewind="100%", branches=("ticket",), predictors=True)
    assert [found["rewind_mask_overlap"] for found in masks_of(spec, trainer)] == [1, 1]


def test_masks_are_by_magnitude_whatever_the_search_prunes_by(
    small: TicketSpec, trainer: Trainer
) -> None:
    spec = replace(small, branches=("ticket",), predictors=True, levels=1)
    random = replace(spec, prune=replace(spec.prune, score="random"))
    assert masks_of(random, trainer) == masks_of(spec, trainer)


def test_mask_measure_is_known_by_both_masks(small: TicketSpec) -> None:
    jobs = jobs_of(small)
    one, two = (jobs[level]["ticket"].mask for level in (1, 2))
    made = MaskStability(early=one, late=two, job=jobs[1]["ticket"])
    others = [
        replace(made, early=two),
        replace(made, late=one),
        replace(made, job=jobs[2]["ticket"]),
    ]
    assert len({m.digest for m in (made, *others)}) == 4
