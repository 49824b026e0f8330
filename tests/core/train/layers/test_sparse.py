"""Layers of their kept weights alone: their values, which layers they replace, and what is stored."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from toys import jobs_of, same

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.errors import PreemptedError
from lth_core.jobs.recipes import Job
from lth_core.masks import masked, ones
from lth_core.seeds import generator
from lth_core.store import Store
from lth_core.train.layers import sparsify
from lth_core.train.layers.sparse import SparseLinear, sparse_layers
from lth_core.train.layers.sparsify import LEAST_WEIGHTS, sparsified
from lth_core.train.loop import Task, run
from lth_core.train.masking.base import Fixed
from lth_core.train.masking.gradual import GMP
from lth_core.train.timings import seconds_per_step

pytestmark = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="this build of torch has no MKL"
)

NET = ModelSpec(widths=(200, 60))
"""Its first two layers have 12,800 and 12,000 weights on the digits, its output layer 600."""
ADAM = TrainSpec(lr=0.01, weight_decay=0.01)


def gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, and gradients of the sum of its squares, of the input and of the bias if any."""
    x = x.clone().requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    bias = layer.bias
    return [y, x.grad] + ([bias.grad] if bias is not None else [])  # type: ignore[list-item,union-attr]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 40), (2, 3, 40), (40,), (0, 40)])
def test_values_and_gradients_are_those_of_the_dense_layer(
    shape: tuple[int, ...], bias: bool
) -> None:
    dense = nn.Linear(40, 30, bias).double()
    mask = torch.rand(30, 40) < 0.1
    mask[3], mask[:, 5] = False, False
    dense.weight.data[~mask] = 0
    sparse = SparseLinear(copy.deepcopy(dense), mask)
    x = torch.randn(shape, dtype=torch.float64)
    for got, expected in zip(gradients(sparse, x), gradients(dense, x), strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(sparse.values.grad, dense.weight.grad[mask])  # type: ignore[index]


def task(density: float = 0.05, net: ModelSpec = NET, train: TrainSpec = ADAM) -> Task:
    """Twelve steps on the digits under a random mask."""
    spec = TicketSpec(model=net, train=replace(train, steps=12, evaluate_every=12), levels=0)
    whole = Trainer()._prepare(jobs_of(spec)[0]["dense"]).task
    stream = generator(0, "mask")
    mask = {
        name: torch.rand(m.shape, generator=stream) < density
        for name, m in ones(whole.model).items()
    }
    whole.model.load_state_dict(masked(whole.model.state_dict(), mask))
    return replace(whole, masking=Fixed(whole.model, mask))


def in_float64(whole: Task) -> Task:
    model, data = whole.model.double(), whole.data
    data = replace(data, mean=data.mean.double(), std=data.std.double())
    return replace(whole, data=data, masking=Fixed(model, whole.masking.mask))


@pytest.mark.parametrize(
    "train", [ADAM, replace(ADAM, optimizer="sgd", momentum=0.9)], ids=["adam", "momentum"]
)
def test_training_ends_where_that_of_the_dense_network_ends(train: TrainSpec) -> None:
    """In float64, where rounding is out of the way."""
    dense = run(in_float64(task(train=train)))
    sparse = sparsified(in_float64(task(train=train)))
    assert sparse is not None
    assert sparse_layers(sparse.task.model) == ["fc1", "fc2"]
    outcome = sparse.widened(run(sparse.task))
    assert list(outcome.state) == list(dense.state)
    assert same(outcome.mask, dense.mask)
    for name, value in dense.state.items():
        torch.testing.assert_close(outcome.state[name], value, rtol=1e-8, atol=1e-10)
    assert outcome.made_with["sparse"] == "fc1 fc2"


def test_layers_of_more_kept_weights_or_fewer_in_all_stay_dense() -> None:
    one = task(0.05)
    mask = dict(one.masking.mask)
    mask["fc1.weight"] = torch.arange(12_800).view(200, 64) < 1_280  # just few enough
    mask["fc2.weight"] = torch.arange(12_000).view(60, 200) < 1_201
    assert mask["output.weight"].numel() < LEAST_WEIGHTS
    sparse = sparsified(replace(one, masking=Fixed(one.model, mask)))
    assert sparse is not None
    assert sparse_layers(sparse.task.model) == ["fc1"]
    assert set(sparse.task.masking.mask) == {"fc2.weight", "output.weight"}


@pytest.mark.parametrize("name", ["lstm", "vit-tiny"])
def test_layers_of_several_weights_are_searched_down_to_few_weights(name: str) -> None:
    """No module has the name of such a weight without its last part."""
    train = TrainSpec(steps=2, evaluate_every=2)
    spec = TicketSpec(
        model=ModelSpec(name=name), train=train, prune=PruneSpec(fraction=0.95), levels=1,
        branches=("ticket",),
    )  # fmt: skip
    *_, last = find_tickets(spec)
    assert last.records[0]["density"] == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(
    "whole",
    [
        lambda: task(0.2),
        lambda: replace(task(), draws=True),
        lambda: replace(task(), keep=(3,)),
        lambda: task(train=replace(ADAM, precision="bf16")),
        lambda: task(net=ModelSpec(name="mlp-constant", widths=(200, 60))),
        lambda: task(density=-1.0),
    ],
    ids=["many weights", "user's network", "rewind points", "bf16", "subclass", "empty layers"],
)
def test_network_stays_whole(whole: Callable[[], Task]) -> None:
    kept = whole()
    assert sparsified(kept) is None
    assert sparse_layers(kept.model) == []


def test_network_whose_mask_changes_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparsify, "MOST_KEPT", 1.0)
    prune = PruneSpec(when="during", fraction=0.9)
    train = TrainSpec(steps=4, evaluate_every=4)
    spec = TicketSpec(model=NET, train=train, prune=prune, levels=1, branches=("ticket",))
    job = jobs_of(spec)[1]["ticket"]
    gradual = Trainer()._prepare(job).task
    assert isinstance(gradual.masking, GMP)
    assert sparsified(gradual) is None


SPEC = TicketSpec(
    model=NET, train=TrainSpec(lr=0.01, steps=30, evaluate_every=30), levels=1,
    prune=PruneSpec(fraction=0.95), branches=("ticket",),
)  # fmt: skip
TICKET = jobs_of(SPEC)[1]["ticket"]


def test_ticket_of_few_weights_is_stored_in_the_shapes_of_the_whole_network() -> None:
    trainer = Trainer()
    (result,) = trainer([TICKET])
    assert result.training.made_with["sparse"] == "fc1 fc2"
    state, mask = trainer.final(TICKET)
    assert {n: v.shape for n, v in state.items()} == {
        n: v.shape for n, v in trainer.model(TICKET).state_dict().items()
    }
    assert same(masked(state, mask), state)
    assert {n: m.shape for n, m in mask.items()} == {
        n: m.shape for n, m in ones(trainer.model(TICKET)).items()
    }
    assert result.training.curves.test_accuracy[-1] > 0.5


def test_ticket_hardly_differs_from_one_trained_with_all_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sparse = Trainer().final(TICKET)[0]
    monkeypatch.setattr(sparsify, "MOST_KEPT", 0.0)
    trainer = Trainer()
    dense = trainer.final(TICKET)[0]
    assert "sparse" not in trainer([TICKET])[0].training.made_with
    for name, value in dense.items():
        torch.testing.assert_close(sparse[name], value, rtol=1e-2, atol=1e-4)


def test_interrupted_training_of_few_weights_resumes_bit_for_bit() -> None:
    whole = Trainer()
    store = Store()
    Trainer(store).final(TICKET.mask.of)  # type: ignore[attr-defined]
    interrupted = Trainer(store)
    interrupted.ending.set()
    with pytest.raises(PreemptedError):
        interrupted([TICKET])
    interrupted.ending.clear()
    assert same(interrupted.final(TICKET)[0], whole.final(TICKET)[0])


def test_plans_estimate_from_the_speed_of_whole_networks() -> None:
    trainer = Trainer()
    dense: Job = TICKET.mask.of  # type: ignore[attr-defined]
    trainer([dense])
    before = seconds_per_step(trainer.store, dense, "cpu")
    other = Trainer(trainer.store)
    other([TICKET])
    assert seconds_per_step(trainer.store, TICKET, "cpu") == before
