"""Chains of linear layers: losses and gradients equal autograd's, bit for bit."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from toys import jobs_of

from lth_core import ModelSpec, TicketSpec, Trainer, TrainSpec, models
from lth_core.masks import State
from lth_core.models.dropout import Dropout
from lth_core.seeds import seeded_draws
from lth_core.spec import Precision
from lth_core.train import loop
from lth_core.train.layers.chain import LinearChain, is_linear_chain
from lth_core.train.layers.linear import AVAILABLE, OneDNNLinear
from lth_core.train.layers.sparse import SparseLinear
from lth_core.train.loop import Run, Task
from lth_core.train.precision import arithmetic

CPU = torch.device("cpu")
SHAPE, CLASSES, BATCH = (1, 5, 4), 7, 12
NETWORKS = {
    "two hidden layers": ModelSpec(name="mlp", widths=(9, 8)),
    "one hidden layer": ModelSpec(name="mlp", widths=(6,)),
    "biases as weights": ModelSpec(name="mlp-constant", widths=(9, 8)),
    "dropout": ModelSpec(name="mlp", widths=(9, 8), dropout=0.3),
}


def network(name: str, seed: int = 0) -> nn.Module:
    return models.build(NETWORKS[name], SHAPE, CLASSES, torch.Generator().manual_seed(seed))


def batch(size: int = BATCH) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(size, *SHAPE, generator=draw)
    return x, torch.randint(0, CLASSES, (size,), generator=draw)


def by_autograd(model: nn.Module, x: Tensor, y: Tensor, precision: Precision) -> list[Tensor]:
    """The loss, and the gradients of all parameters that need one."""
    with arithmetic(precision, CPU):
        loss = cross_entropy(model(x), y)
    loss.backward()
    return [loss.detach(), *cleared_gradients(model)]


def by_chain(model: nn.Module, x: Tensor, y: Tensor, precision: Precision) -> list[Tensor]:
    with arithmetic(precision, CPU):
        loss = LinearChain(model, precision).backward(x, y)
    return [loss, *cleared_gradients(model)]


def cleared_gradients(model: nn.Module) -> list[Tensor]:
    """The gradients of a network, which has none afterwards and draws as before them."""
    found = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for layer in model.modules():
        if isinstance(layer, Dropout):
            layer.begin_step(0, "0", 0)
    return found


def check_equal(model: nn.Module, x: Tensor, y: Tensor, precision: Precision = "fp32") -> None:
    """A network's loss and gradients are nonzero, and the same by both."""
    expected, got = by_autograd(model, x, y, precision), by_chain(model, x, y, precision)
    assert all(bool(tensor.any()) for tensor in expected)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(got) == len(expected) == 1 + len(trained)
    for one, right in zip(got, expected, strict=True):
        assert (one.dtype, one.shape) == (right.dtype, right.shape)
        assert torch.equal(one, right)


@pytest.mark.parametrize("size", [BATCH, 1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_equal_those_of_autograd(
    name: str, precision: Precision, size: int
) -> None:
    check_equal(network(name), *batch(size), precision)


def test_they_equal_autograd_s_in_float64() -> None:
    x, y = batch()
    check_equal(network("two hidden layers").double(), x.double(), y)


@pytest.mark.skipif(not AVAILABLE, reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("layer", ["fc1", "fc2", "output"])
def test_layers_that_onednn_computes_equal_autograd_s(layer: str) -> None:
    model = network("two hidden layers")
    model.get_submodule(layer).__class__ = OneDNNLinear
    check_equal(model, *batch())


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build has no MKL")
@pytest.mark.parametrize("layer", ["fc1", "fc2", "output"])
def test_layers_of_kept_weights_equal_autograd_s(layer: str) -> None:
    model = network("two hidden layers")
    linear = model.get_submodule(layer)
    assert isinstance(linear, nn.Linear)
    mask = torch.rand(linear.weight.shape, generator=torch.Generator().manual_seed(2)) < 0.4
    linear.weight.data *= mask
    model.set_submodule(layer, SparseLinear(linear, mask))
    check_equal(model, *batch())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_networks_equal_each_alone(name: str, count: int) -> None:
    networks = [network(name, seed).double() for seed in range(count)]
    with seeded_draws(0):
        x, y = torch.randn(count, BATCH, *SHAPE), torch.randint(0, CLASSES, (count, BATCH))
    x = x.double()
    streams = [(seed, "0") for seed in range(count)]
    named = [dict(model.named_parameters()) for model in networks]
    stacked = {
        n: torch.stack([own[n].detach() for own in named]).requires_grad_() for n in named[0]
    }
    first = copy.deepcopy(networks[0])
    for layer in first.modules():
        if isinstance(layer, Dropout):
            layer.begin_stacked_step(streams, 5)
    losses = LinearChain(first, "fp32", stacked).backward(x, y.flatten())
    assert losses.shape == (count,)
    for number, model in enumerate(networks):
        for layer in model.modules():
            if isinstance(layer, Dropout):
                layer.begin_step(*streams[number], 5)
        loss, *right = by_autograd(model, x[number], y[number], "fp32")
        torch.testing.assert_close(losses[number], loss)
        for parameter, gradient in zip(stacked.values(), right, strict=True):
            assert parameter.grad is not None
            assert parameter.grad.shape == parameter.shape
            torch.testing.assert_close(parameter.grad[number], gradient)


def test_frozen_parameters_get_no_gradient() -> None:
    model = network("two hidden layers")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in {"fc1.weight", "fc2.bias"})
    check_equal(model, *batch())


class Doubled(nn.Linear):
    """A subclass, whose forward pass is its own."""


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(3, 2),
        nn.Sequential(nn.Flatten(), nn.ReLU()),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)),
        nn.Sequential(Doubled(3, 2)),
        nn.Sequential(shared := nn.Linear(3, 3), nn.ReLU(), shared),
    ],
    ids=["no sequence", "no parameters", "convolution", "tanh", "subclass", "layer used twice"],
)
def test_other_networks_are_no_chain(model: nn.Module) -> None:
    assert not is_linear_chain(model)


TRAIN = TrainSpec(steps=30, evaluate_every=30, optimizer="sgd", lr=0.1, momentum=0.9)


def task_of(train: TrainSpec, model: ModelSpec) -> Task:
    spec = TicketSpec(model=model, train=train, levels=1, branches=("ticket",))
    trainer = Trainer(device="cpu")
    job = jobs_of(spec)[-1]["ticket"]
    trainer([job])
    return trainer._with_task(job).task


def trained(task: Task) -> tuple[list[float], State]:
    """Losses of the evaluations, and the state after the last step."""
    outcome = loop.run(task)
    return outcome.curves.train_loss, outcome.state


@pytest.mark.parametrize(
    "train",
    [TRAIN, replace(TRAIN, precision="bf16"), replace(TRAIN, optimizer="adam", momentum=0.0)],
    ids=["sgd", "bf16", "adam"],
)
def test_training_of_a_ticket_equals_one_by_autograd(
    train: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(train, ModelSpec(name="mlp", widths=(20,), dropout=0.1))
    assert Run(task)._chain
    other = replace(task, model=(model := copy.deepcopy(task.model)))
    other = replace(other, masking=type(task.masking)(model, task.masking.mask))  # type: ignore[call-arg]
    ours = trained(task)
    monkeypatch.setattr(loop, "is_linear_chain", lambda model: False)
    assert Run(other)._chain is None
    losses, state = trained(other)
    assert ours[0] == losses
    assert all(torch.equal(ours[1][name], value) for name, value in state.items())


def test_user_network_is_trained_by_autograd() -> None:
    """It may have hooks, or draw."""
    task = task_of(TRAIN, ModelSpec(name="mlp", widths=(4,)))
    assert Run(task)._chain
    assert Run(replace(task, draws=True))._chain is None
