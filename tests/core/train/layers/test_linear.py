"""Linear layers by oneDNN: their values, when they are used, and what is stored of the choice."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from toys import jobs_of

from lth_core import ModelSpec, TicketSpec, Trainer, TrainSpec
from lth_core.models.networks.mlp import WithConstant
from lth_core.seeds import seeded_draws
from lth_core.store import Store
from lth_core.train.layers import linear as linear_module
from lth_core.train.layers.linear import (
    AVAILABLE,
    KIND,
    LinearChoice,
    OneDNNLinear,
    measured_gain,
    onednn_layers,
)

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this build of torch has no oneDNN")

TRAIN = TrainSpec(steps=30, evaluate_every=30)


class Gains:
    """Measurements that find the next of some gains each."""

    def __init__(self, *gains: float) -> None:
        self.gains, self.shapes = list(gains), list[tuple[int, ...]]()

    def __call__(self, *shape: int) -> float:
        self.shapes.append(shape)
        return self.gains.pop(0)


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of 20 and more weights in batches of 50 are large, and oneDNN gains twice."""
    monkeypatch.setattr(linear_module, "LEAST_PRODUCTS", 1_000)
    monkeypatch.setattr(linear_module, "measured_gain", lambda *shape: 2.0)


def gradients(layer: nn.Linear, x: Tensor) -> list[Tensor]:
    """Output, and gradients of the sum of its squares, of a layer's parameters and input."""
    x = x.detach().requires_grad_()
    y = layer(x)
    found = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
    return [y.detach(), *found]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(60, 200),
        torch.randn(200, 60).t(),
        torch.randn(4, 15, 200).transpose(0, 1),
        torch.randn(200),
        torch.randn(0, 200),
    ],
    ids=["batch", "transposed", "sequence", "one", "empty"],
)
def test_values_and_gradients_are_as_near_to_float64_as_the_plain_ones(
    x: Tensor, bias: bool
) -> None:
    plain = nn.Linear(200, 30, bias)
    fast = copy.deepcopy(plain)
    fast.__class__ = OneDNNLinear
    exact = gradients(copy.deepcopy(plain).double(), x.double())
    for ours, theirs, right in zip(gradients(fast, x), gradients(plain, x), exact, strict=True):
        assert ours.shape == right.shape
        torch.testing.assert_close(ours.double(), right, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(theirs.double(), right, rtol=1e-4, atol=1e-4)


def test_only_the_gradients_that_are_needed_are_computed() -> None:
    layer = OneDNNLinear(5, 3)
    layer.weight.requires_grad_(False)
    layer(torch.ones(2, 5)).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad.tolist() == [2, 2, 2]  # type: ignore[union-attr]


def test_second_derivatives_are_those_of_the_plain_layer() -> None:
    with seeded_draws(0):  # with some draws terms cancel, and rounding is more than the tolerance
        plain, x = nn.Linear(6, 4), torch.randn(5, 6)
    fast = copy.deepcopy(plain)
    fast.__class__ = OneDNNLinear

    def curvature(layer: nn.Linear) -> tuple[Tensor, ...]:
        loss = layer(x).tanh().square().sum()
        first = torch.autograd.grad(loss, list(layer.parameters()), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), list(layer.parameters()))  # type: ignore[arg-type]

    torch.testing.assert_close(curvature(fast), curvature(plain), rtol=1e-4, atol=1e-5)


def test_layer_runs_under_vmap() -> None:
    layer, weights, x = OneDNNLinear(6, 4, bias=False), torch.randn(3, 4, 6), torch.randn(5, 6)
    both = torch.func.vmap(lambda w: torch.func.functional_call(layer, {"weight": w}, x))(weights)
    torch.testing.assert_close(both, torch.stack([linear(x, w) for w in weights]))


def network() -> nn.Sequential:
    layers = nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 50), WithConstant(50, 60), nn.Linear(60, 2)
    return nn.Sequential(*layers)


def test_large_layers_that_gain_are_replaced_and_measured_once_a_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gains = Gains(1.39, 1.41)
    monkeypatch.setattr(linear_module, "measured_gain", gains)
    monkeypatch.setattr(linear_module, "LEAST_PRODUCTS", 100 * 20 * 40)
    store = Store()
    for choice in (one := LinearChoice(store), one, LinearChoice(store)):
        model = network()
        names = list(model.state_dict())
        choice.apply(model, 100)
        assert onednn_layers(model) == ["2"]
        assert list(model.state_dict()) == names
        assert onednn_layers(copy.deepcopy(model)) == ["2"]
    assert gains.shapes == [(100, 20, 40), (100, 40, 50)]  # not the subclass, nor the small output
    entries = [store.get(KIND, digest) for digest in store.digests(KIND)]
    assert sorted(entry.meta["gain"] for entry in entries if entry) == [1.39, 1.41]


@pytest.mark.parametrize("what", ["batch_size", "threads", "cpu", "torch"])
def test_another_batch_size_processor_or_version_is_measured_anew(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = Gains(2.0, 1.0)
    monkeypatch.setattr(linear_module, "measured_gain", gains)
    monkeypatch.setattr(linear_module, "LEAST_PRODUCTS", 100 * 41)
    model, other, choice = nn.Linear(40, 10), nn.Linear(40, 10), LinearChoice(Store())
    choice.apply(model, 100)
    if what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    if what == "cpu":
        monkeypatch.setattr(linear_module, "device_name", lambda device: "another")
    if what == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    choice.apply(other, 101 if what == "batch_size" else 100)
    assert (onednn_layers(model), onednn_layers(other)) == ([""], [])


def test_broken_gain_is_measured_anew(faster: None, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    LinearChoice(store).apply(nn.Linear(40, 10), 100)
    (key,) = store.digests(KIND)
    store.put(KIND, key, {"gain": "fast"})
    model = nn.Linear(40, 10)
    LinearChoice(store).apply(model, 100)
    assert onednn_layers(model) == [""]
    assert f"{KIND}/{key}: cannot be read" in caplog.text
    assert store.get(KIND, key).meta["gain"] == 2.0  # type: ignore[union-attr]


def test_measurement_draws_from_no_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "SECONDS", 0.0)
    before = torch.get_rng_state()
    assert measured_gain(8, 6, 4) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_training_says_which_layers_onednn_computed_and_hardly_differs(faster: None) -> None:
    job = jobs_of(TicketSpec(model=ModelSpec(widths=(30, 20)), train=TRAIN, levels=0))[0]["dense"]
    trainer = Trainer()
    (result,) = trainer([job])
    assert result.training.made_with["onednn"] == "fc1 fc2 output"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_module, "LEAST_PRODUCTS", 10**9)
        plain = Trainer()
        (other,) = plain([job])
    assert "onednn" not in other.training.made_with
    for name, value in trainer.final(job)[0].items():
        torch.testing.assert_close(value, plain.final(job)[0][name], rtol=1e-3, atol=1e-5)


def test_bf16_stays_as_it_is(faster: None) -> None:
    spec = TicketSpec(train=replace(TRAIN, steps=1, precision="bf16"), levels=0)
    (result,) = Trainer()([jobs_of(spec)[0]["dense"]])
    assert "onednn" not in result.training.made_with


def test_scores_have_plain_networks(faster: None) -> None:
    """GraSP differentiates twice; only training replaces layers, in its own network."""
    job = jobs_of(TicketSpec(train=TRAIN, levels=0))[0]["dense"]
    trainer = Trainer()
    trainer([job])
    assert onednn_layers(trainer.network(job, trainer.start(job))) == []
    assert onednn_layers(trainer.model(job)) == []
