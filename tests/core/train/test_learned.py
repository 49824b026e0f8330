"""edge-popup and supermask: a mask is learned over weights that never train."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from toys import jobs_of, timeless
from watched import Watch, counts, equal, watch

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
from lth_core.data import Dataset
from lth_core.jobs.recipes import Job
from lth_core.masks import Mask, State, kept
from lth_core.train.batches import Order

SCORES = ["edge-popup", "supermask"]
SGD = TrainSpec(optimizer="sgd", lr=0.1, momentum=0.9, steps=20, evaluate_every=1)
NORMED = ModelSpec(name="toys:batch_norm_net")


def strong(score: str = "edge-popup", **changes: Any) -> TicketSpec:
    """A third of the weights, over the state after 7 steps; `prune` adds to the pruning."""
    prune = PruneSpec(
        when="never", score=score, **{"fraction": 0.64, **changes.pop("prune", {})}
    )  # fmt: skip
    spec = TicketSpec(
        model=ModelSpec(widths=(32, 16)), train=SGD, prune=prune, levels=1, rewind=7,
        branches=("ticket",),
    )  # fmt: skip
    return replace(spec, **changes)


def job_of(score: str = "edge-popup", **changes: Any) -> Job:
    return jobs_of(strong(score, **changes))[1]["ticket"]


def network(job: Job) -> tuple[nn.Module, Dataset]:
    dataset = data.load(job.data, torch.device("cpu"))
    return models.build(job.model, dataset.shape, 10, torch.Generator()).train(), dataset


def loss_of(job: Job, state: State, step: int) -> Tensor:
    """The network's loss on a step's batch, from weights that may be functions."""
    model, dataset = network(job)
    order = Order(len(dataset.train), job.train.batch_size, job.seed, job.level)
    ((_, index, _),) = order.batches(step, step + 1, torch.device("cpu"))
    batch = dataset.train.at(index)
    return cross_entropy(functional_call(model, state, (dataset.normalize(batch.x),)), batch.y)


# What stays as it is


@pytest.mark.parametrize("net", [ModelSpec(widths=(32, 16)), NORMED], ids=["mlp", "conv"])
@pytest.mark.parametrize("score", SCORES)
def test_every_weight_is_bit_identical_to_its_start(
    score: str, net: ModelSpec, trainer: Trainer
) -> None:
    """Biases and batch norm's parameters too, none of which is 0 or 1 any more."""
    job = job_of(score, model=net)
    start, (state, mask) = trainer.start(job), trainer.final(job)
    parameters = dict(network(job)[0].named_parameters())
    assert 0 < kept(mask) < sum(m.numel() for m in mask.values())
    for name in parameters:
        alive = mask.get(name, torch.ones_like(start[name], dtype=torch.bool))
        assert torch.equal(state[name][alive], start[name][alive])
        assert not state[name][~alive].any()
        assert start[name].unique().numel() > 1


@pytest.mark.parametrize("score", SCORES)
def test_layers_out_of_the_count_stay_dense_and_frozen(score: str, trainer: Trainer) -> None:
    job = job_of(score, prune={"ignore": ("fc2",)})
    start, (state, mask) = trainer.start(job), trainer.final(job)
    assert mask["fc2.weight"].all()
    assert torch.equal(state["fc2.weight"], start["fc2.weight"])
    assert counts(mask) == {"fc1.weight": 737, "fc2.weight": 512, "output.weight": 58}


# What is kept


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("scope", "expected"),
    [("layerwise", [737, 184, 58]), ("erk", [553, 276, 150]), ("global", None)],
)
def test_density_is_exact_at_every_evaluation(
    score: str, scope: str, expected: list[int] | None
) -> None:
    seen = watch(job_of(score, prune={"scope": scope}))
    for mask, state in zip(seen.masks, seen.after, strict=True):
        assert kept(mask) == 979
        assert expected is None or list(counts(mask).values()) == expected
        assert all(torch.equal(state[name] != 0, m) for name, m in mask.items())
    assert not equal(seen.masks[0], seen.masks[-1])


def test_records_of_every_level_hold_the_density_asked_for(trainer: Trainer) -> None:
    levels = list(find_tickets(strong(levels=3, prune={"output_fraction": 0.3}), trainer))
    left = [round(2560 * 0.36**n) for n in range(4)]
    for level, of_hidden in zip(levels, left, strict=True):
        row = level.records[0]
        assert abs(row["weights_kept"] - of_hidden - 160 * 0.7**level.level) < 2
        assert row["density"] == pytest.approx(row["requested_density"], abs=1e-3)


@pytest.mark.parametrize("score", SCORES)
def test_learned_mask_depends_on_the_seed_alone(score: str, trainer: Trainer) -> None:
    spec = strong(score)
    one = [timeless(level.records[0]) for level in find_tickets(spec, trainer)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = [timeless(level.records[0]) for level in find_tickets(spec, Trainer())]
    assert one == again


def test_first_scores_are_drawn_by_seed_and_level() -> None:
    """Uniform within 1/sqrt(fan in)."""
    job = job_of()
    first = [
        watch(replace(job, **way, last=8)).parameters[0] for way in ({}, {"seed": 1}, {"level": 2})
    ]
    for one, by_seed, by_level in zip(*first, strict=True):
        bound = one[0].numel() ** -0.5
        assert 0.95 * bound < float(one.abs().max()) <= bound
        assert float(one.mean()) == pytest.approx(0, abs=0.2 * bound)
        assert not (one == by_seed).any()
        assert not (one == by_level).any()


# How it is learned


class Top(torch.autograd.Function):
    """Which scores are the highest; backward as if that were the identity."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, keep: int) -> Tensor:
        mask = torch.zeros(scores.numel())
        mask[scores.flatten().argsort(descending=True)[:keep]] = 1
        return mask.view_as(scores)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@pytest.mark.slow
def test_edge_popup_agrees_with_autograd_straight_through(trainer: Trainer) -> None:
    job = job_of(train=replace(SGD, steps=15, weight_decay=0.01, lr=1.0))
    start, seen = trainer.start(job), watch(job)
    scores = [p.clone().requires_grad_() for p in seen.parameters[0]]
    keep, names = [737, 184, 58], list(seen.masks[0])
    optimizer = torch.optim.SGD(scores, lr=1.0, momentum=0.9, weight_decay=0.01)
    for n, step in enumerate(range(job.first, job.last)):
        tops = {k: Top.apply(s.abs(), c) for k, s, c in zip(names, scores, keep, strict=True)}
        optimizer.zero_grad()
        loss_of(job, {**start, **{k: start[k] * top for k, top in tops.items()}}, step).backward()
        assert all(torch.equal(seen.before[n][k] != 0, top > 0) for k, top in tops.items())
        for score, gradient in zip(scores, seen.gradients[n], strict=True):
            torch.testing.assert_close(gradient, score.grad, rtol=1e-3, atol=1e-6)
        optimizer.step()
        found: Mask = {
            k: Top.apply(s.abs(), c) > 0 for k, s, c in zip(names, scores, keep, strict=True)
        }
        assert equal(seen.masks[n], found)


def probabilities(scores: Tensor, keep: int) -> Tensor:
    """sigmoid(score - t), t by bisection so that they sum to what is kept."""
    low, high = -50.0, 50.0
    for _ in range(80):
        t = (low + high) / 2
        above = float(torch.sigmoid(scores.double() - t).sum()) > keep
        low, high = (t, high) if above else (low, t)
    return torch.sigmoid(scores.double() - low)


@pytest.fixture(scope="module")
def drawn() -> tuple[Job, Watch]:
    """A supermask whose scores have come apart."""
    job = job_of(
        "supermask", train=TrainSpec(steps=40, lr=0.3, evaluate_every=1), prune={"fraction": 0.9}
    )
    return job, watch(job)


def test_supermasks_gradient_is_that_of_the_mask_it_tried(
    drawn: tuple[Job, Watch], trainer: Trainer
) -> None:
    job, seen = drawn
    start = trainer.start(job)
    for n in (0, 20, 32):
        tried = {
            name: (seen.before[n][name] != 0).float().requires_grad_() for name in seen.masks[0]
        }
        masked = {name: start[name] * m for name, m in tried.items()}
        loss_of(job, {**start, **masked}, job.first + n).backward()
        for i, (name, m) in enumerate(tried.items()):
            p = probabilities(seen.parameters[n][i], counts(seen.masks[n])[name])
            assert m.grad is not None
            expected = (m.grad * p * (1 - p)).float()
            scale = float(expected.abs().max())
            torch.testing.assert_close(seen.gradients[n][i], expected, rtol=0.05, atol=1e-3 * scale)


def test_supermasks_probabilities_sum_to_what_is_kept(drawn: tuple[Job, Watch]) -> None:
    """Told by how many weights are tried: on average as many as are kept, and never the same."""
    _, seen = drawn
    for i, (name, keep) in enumerate(counts(seen.masks[0]).items()):
        tried = torch.stack([state[name] != 0 for state in seen.before]).flatten(1)
        p = torch.stack([probabilities(scores[i], keep).flatten() for scores in seen.parameters])
        deviation = float((p * (1 - p)).sum() ** 0.5) / len(tried)
        assert float(tried.sum(1).float().mean()) == pytest.approx(keep, abs=4 * deviation + 0.5)
        # Drawn anew: two draws differ in 2 p (1 - p) of their places.
        spread = float((p[0] * (1 - p[0])).mean())
        assert float((tried[0] != tried[1]).float().mean()) > spread
    assert float(p[-1].max()) > 0.3 > float(p[-1].min()) * 5


def test_supermask_keeps_its_likeliest_weights(drawn: tuple[Job, Watch]) -> None:
    _, seen = drawn
    for mask, scores in zip(seen.masks, seen.parameters[1:], strict=False):
        for m, score in zip(mask.values(), scores, strict=True):
            assert score[m].min() >= score[~m].max()


@pytest.mark.parametrize(("score", "lr"), [("edge-popup", 1.0), ("supermask", 20.0)])
@pytest.mark.parametrize(
    "init", ["kaiming_normal", pytest.param("signed_constant", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_untrained_network_holds_a_subnetwork_that_tells_digits_apart(
    score: str, lr: float, init: Any, trainer: Trainer
) -> None:
    spec = strong(
        score, model=ModelSpec(widths=(64, 64), init=init), branches=("ticket", "random_mask"),
        train=replace(SGD, steps=150, evaluate_every=50), rewind=0,
        prune={"fraction": 0.5, "lr": lr},
    )  # fmt: skip
    ticket, random = list(find_tickets(spec, trainer))[1].records
    assert ticket["final_test_accuracy"] > 0.8
    assert random["final_test_accuracy"] < 0.3


@pytest.mark.parametrize("score", SCORES)
def test_masks_learning_rate_is_the_masks_alone(score: str, trainer: Trainer) -> None:
    branches = ("ticket", "trained")
    own = jobs_of(strong(score, prune={"lr": 0.3}, branches=branches))
    slow, fast = (
        jobs_of(strong(score, train=replace(SGD, lr=lr), branches=branches))[1]["ticket"]
        for lr in (0.1, 0.3)
    )
    # The same scores learned from the same start, at its own rate.
    fast = replace(fast, start=own[1]["ticket"].start)
    mask = trainer.final(own[1]["ticket"])[1]
    assert equal(mask, trainer.final(fast)[1])
    assert not equal(mask, trainer.final(slow)[1])
    for job in (own[0]["dense"], own[1]["trained"]):
        assert (job.train.lr, job.finds) == (0.1, None)


def test_control_has_batch_norms_statistics_of_its_own_weights(trainer: Trainer) -> None:
    """It takes no step, which would update them."""
    branches = ("ticket", "reinit", "random_mask", "constant_sign", "trained")
    level = list(find_tickets(strong(model=NORMED, branches=branches), trainer))[1]
    controls = [level.results[name].job for name in branches[1:4]]
    for job in controls:
        images = data.load(job.data, torch.device("cpu"))
        state = trainer.final(job)[0]
        maps = nn.functional.conv2d(
            images.normalize(images.train.x), state["conv.weight"], padding=1
        )
        assert torch.allclose(state["norm.running_mean"], maps.mean((0, 2, 3)), atol=1e-3)
        assert torch.allclose(state["norm.running_var"], maps.var((0, 2, 3)), rtol=0.05)
        start = trainer.start(job)
        assert torch.equal(start["norm.running_mean"], state["norm.running_mean"])
    assert trainer.ticket(level.spec, 1, "reinit", controls[0]).rewind_step == 0
    assert trainer.ticket(level.spec, 1, "random_mask", controls[1]).rewind_step == 7


@pytest.mark.parametrize("score", SCORES)
def test_mask_of_a_collapsed_layer_is_flagged_and_learning_goes_on(
    score: str, trainer: Trainer
) -> None:
    spec = strong(score, prune={"layer_fractions": {"fc2": 0.9999}}, branches=("ticket", "trained"))
    level = list(find_tickets(spec, trainer))[1]
    for row in level.records:
        assert row["collapsed_layers"] == 1
        curves = level.results[row["branch"]].training.curves
        assert all(0 < loss < 100 for loss in (*curves.train_loss, *curves.validation_loss))
