"""Masks that are learned for several networks as one computation."""

import copy
from typing import Any

import pytest
import torch
from double import Double
from pack_jobs import MLP, QUICK, by_level, searches
from torch import Tensor

from lth_core import PruneSpec, Trainer
from lth_core.jobs.recipes import Job
from lth_core.train.masking.learned import Learned, LearnedStack, learned_together
from lth_core.train.optimizer import make_optimizer


def tickets(score: str, count: int = 3, **prune: Any) -> list[Job]:
    """Tickets of two seeds at some levels, so with three numbers of kept weights."""
    spec = PruneSpec(when="never", score=score, fraction=0.4, lr=0.05, **prune)
    of_levels = by_level(
        searches((0, 1), (0,), model=MLP, train=QUICK, levels=count, branches=("ticket",),
                 prune=spec)
    )  # fmt: skip
    return [job for jobs in list(of_levels)[1:] for job in jobs]


def members(jobs: list[Job]) -> list[Learned]:
    trainer = Trainer(device="cpu")
    maskings = [trainer._prepare(job).task.masking for job in jobs]
    return [each for each in maskings if isinstance(each, Learned)]


@pytest.mark.parametrize("scope", ["layerwise", "global"])
@pytest.mark.parametrize("score", ["edge-popup", "supermask"])
def test_masks_and_gradients_of_a_stack_are_bit_for_bit_those_of_each_network(
    score: str, scope: str
) -> None:
    together, alone = (members(tickets(score, scope=scope)) for _ in range(2))
    together[0].quotas = alone[0].quotas = [
        (names, sum(together[0].scores[name].numel() for name in names))
        for names, _ in alone[0].quotas
    ]  # one network prunes nothing
    draws, weights = torch.Generator().manual_seed(0), dict[str, Tensor]()
    for name in together[0].weights:
        weights[name] = torch.stack([m.weights[name].detach() for m in together])
        weights[name].requires_grad_()
    stack = learned_together(together, weights)
    assert isinstance(stack, LearnedStack)
    for step in range(3):
        stack.before_forward(step)
        if score == "edge-popup":
            assert all(torch.equal(weights[n][0], w) for n, w in together[0].frozen.items())
        for weight in weights.values():
            weight.grad = torch.randn(weight.shape, generator=draws)
        for n, one in enumerate(alone):
            one.before_forward(step)
            for name, weight in one.weights.items():
                assert torch.equal(weights[name][n], weight)
                weight.grad = weights[name].grad[n].clone()
            one.before_step(step, make_optimizer(one.trained(), QUICK))
        stack.before_step()
        with torch.no_grad():
            for name, scores in stack.scores.items():
                scores.sub_(0.1 * scores.grad).mul_(16).round_().div_(16)  # many ties
                for n, one in enumerate(alone):
                    assert torch.equal(scores.grad[n], one.scores[name].grad)
                    one.scores[name].copy_(scores[n])
                    assert torch.equal(together[n].scores[name], scores[n])  # a view


def test_networks_in_which_other_layers_compete_are_not_stacked() -> None:
    both = [*members(tickets("edge-popup")), *members(tickets("edge-popup", scope="global"))]
    assert learned_together(both, {}) is None
    assert learned_together([copy.copy(both[0]), *members(tickets("supermask"))], {}) is None


@pytest.mark.slow
@pytest.mark.parametrize("score", ["edge-popup", "supermask"])
def test_levels_in_one_pack_equal_each_trained_alone_in_float64(score: str) -> None:
    jobs = tickets(score)
    alone, packed = Double(pack=1), Double(pack=99)
    alone(jobs)
    packed(jobs)
    assert packed.packs == [len(jobs)]
    for job in jobs:
        one, other = packed.ended[job.digest], alone.ended[job.digest]
        assert all(torch.equal(one.mask[name], mask) for name, mask in other.mask.items())
        assert one.curves.validation_loss == pytest.approx(other.curves.validation_loss)
        assert one.curves.train_loss == pytest.approx(other.curves.train_loss)
