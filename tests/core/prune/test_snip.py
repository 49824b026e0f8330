import copy

import drawing_nets
import pytest
import torch
from small_nets import batch, close, conv_net, mlp, prunable_network, sparse
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from toys import same

from lth_core import models
from lth_core.masks import Mask, ones
from lth_core.prune.network import from_model
from lth_core.prune.snip import snip
from lth_core.spec import ModelSpec

STEP = 1e-6
DROPPING = (
    "functional_dropout", "alpha_dropout", "channel_dropout", "stochastic_depth", "lstm",
    "attention",
)  # fmt: skip
"""Networks of drawing_nets.py that drop units in training."""


def slopes(model: nn.Module, mask: Mask, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """How fast the loss changes with each entry of the mask, by moving one after the other."""
    model = copy.deepcopy(model)
    weights = {
        name: p.detach() * mask[name] for name, p in model.named_parameters() if name in mask
    }
    c = {name: m.double() for name, m in mask.items()}

    def loss() -> float:
        connected = {name: weights[name] * c[name] for name in c}
        with torch.no_grad():
            return float(cross_entropy(functional_call(model, connected, (x,)), y))

    found = {name: torch.zeros_like(entries) for name, entries in c.items()}
    for name, entries in c.items():
        for i, here in enumerate(entries.flatten().tolist()):
            flat = entries.view(-1)
            flat[i] = here + STEP
            above = loss()
            flat[i] = here - STEP
            found[name].view(-1)[i] = abs(above - loss()) / (2 * STEP)
            flat[i] = here
    return found


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize(
    ("model", "shape"), [(mlp(4, 5, 3), (4,)), (conv_net(), (2, 4, 4))], ids=["mlp", "conv"]
)
def test_snip_is_how_fast_the_loss_changes_with_each_entry_of_the_mask(
    model: nn.Module, shape: tuple[int, ...], density: float
) -> None:
    (x, y), mask = batch(shape, 3), sparse(model, density)
    scores = snip(prunable_network(model, x, y, mask))
    for name, slope in slopes(model, mask, x, y).items():
        assert slope.any()
        assert close(scores[name], slope, rtol=1e-4, atol=1e-8)


def test_weight_of_zero_scores_zero_though_the_loss_has_a_slope_in_it() -> None:
    """The mask is differentiated, not the weight."""
    model, (x, y) = mlp(4, 5, 3), batch((4,), 3)
    with torch.no_grad():
        model.fc2.weight[1, 2] = 0
    cross_entropy(model(x), y).backward()
    assert model.fc2.weight.grad[1, 2].abs() > 1e-3
    score = snip(prunable_network(model, x, y))["fc2.weight"]
    assert score[1, 2] == 0
    assert close(score, (model.fc2.weight * model.fc2.weight.grad).abs(), rtol=1e-5)


def test_snip_leaves_the_network_it_looks_at_alone() -> None:
    model, (x, y) = conv_net(), batch((2, 4, 4), 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    snip(prunable_network(model, x, y, ones(model)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_snip_scores_a_network_with_dropout_as_the_same_weights_without() -> None:
    def scores(dropout: float) -> dict[str, Tensor]:
        spec = ModelSpec(widths=(6, 5), dropout=dropout)
        model = models.build(spec, (4,), 3, torch.Generator().manual_seed(0))
        return snip(prunable_network(model.double(), *batch((4,), 3)))

    assert all(score.any() for score in scores(0.5).values())
    assert same(scores(0.5), scores(0.0))


def test_a_notebooks_own_network_is_scored_without_its_dropout() -> None:
    x, y = batch((4,), 3)
    net = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    bare = nn.Sequential(net[0], nn.Identity(), net[2])
    assert same(snip(from_model(net, x, y)), snip(from_model(bare, x, y)))
    assert isinstance(net[1], nn.Dropout)


@pytest.mark.parametrize("name", DROPPING)
def test_own_network_is_scored_without_dropout_whatever_drops(name: str) -> None:
    torch.manual_seed(2)
    x, y = torch.randn(20, 1, 8, 8), torch.arange(20) % 10
    model = getattr(drawing_nets, name)(ModelSpec(), (1, 8, 8), 10)
    norm = nn.Sequential(model, nn.BatchNorm1d(10))
    scores = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        scores.append(snip(from_model(norm, x, y)))
    assert same(*scores)
    # Batch norm does use the batch's statistics, which do not depend on the running ones.
    norm[1].running_mean.fill_(5)
    assert same(snip(from_model(norm, x, y)), scores[0])
    model.train()
    assert not torch.equal(model(x), model(x))
