import copy

import pytest
import torch
from odd_nets import SOUND
from small_nets import batch, close, conv_net, counts, drawn, mlp, prunable_network, pruned, sparse
from torch import Tensor, nn

from lth_core.prune.network import from_model
from lth_core.prune.synflow import ROUNDS, synflow

NETS = [(mlp(6, 9, 5, 7, 3), (6,)), (conv_net(), (2, 4, 4))]


def by_paths(weights: list[Tensor], layer: int, unit: int, source: int) -> float:
    """What flows through one connection: the sum over all paths of the product of |w| on them."""
    into = torch.ones(weights[0].shape[1], dtype=torch.float64)
    for w in weights[:layer]:
        into = torch.stack([sum(abs(row[j]) * into[j] for j in range(len(into))) for row in w])
    out = torch.ones(weights[-1].shape[0], dtype=torch.float64)
    for w in reversed(weights[layer + 1 :]):
        out = torch.stack(
            [sum(abs(row[j]) * out[i] for i, row in enumerate(w)) for j in range(w.shape[1])]
        )
    return float(out[unit] * abs(weights[layer][unit, source]) * into[source])


def test_synflow_is_the_sum_of_the_paths_through_each_weight() -> None:
    model, mask = mlp(4, 3, 5, 2), sparse(mlp(4, 3, 5, 2), 0.7)
    scores = synflow(prunable_network(model, *batch((4,), 2), mask=mask))
    weights = [p.detach() * mask[name] for name, p in model.named_parameters() if name in mask]
    for layer, (w, score) in enumerate(zip(weights, scores.values(), strict=True)):
        expected = [
            [by_paths(weights, layer, i, j) for j in range(w.shape[1])] for i in range(len(w))
        ]
        assert close(score, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("density", [1.0, 0.8])
@pytest.mark.parametrize(("model", "shape"), NETS, ids=["mlp", "conv"])
def test_what_flows_in_flows_out_every_layer_has_the_same_sum(
    model: nn.Module, shape: tuple[int, ...], density: float
) -> None:
    network = prunable_network(model, *batch(shape, 3), mask=sparse(model, density))
    sums = [float(score.sum()) for score in synflow(network).values()]
    assert sums[0] > 0
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-9)


def test_unit_passes_on_what_it_gets() -> None:
    scores = list(synflow(prunable_network(mlp(6, 9, 5, 3), *batch((6,), 3))).values())
    assert close(scores[0].sum(1), scores[1].sum(0))
    assert close(scores[1].sum(1), scores[2].sum(0))


def test_synflow_sees_neither_examples_nor_biases_nor_signs() -> None:
    model, again = conv_net(), conv_net()
    with torch.no_grad():
        for name, parameter in again.named_parameters():
            parameter.copy_(parameter.flip(0) if name.endswith("bias") else -parameter)
        again.norm.running_mean.neg_()
    one = synflow(prunable_network(model, *batch((2, 4, 4), 3)))
    other = synflow(prunable_network(again, *batch((2, 4, 4), 3, n=2, seed=9)))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_synflow_sees_no_biases_of_recurrent_layers_and_attention() -> None:
    """Their names begin with `bias`, and end with their layer, or end with `proj_bias`."""
    x, y = torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
    for name in ("recurrent", "gru", "cell", "attention"):
        model = SOUND[name]()
        bare = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in (p for n, p in bare.named_parameters() if "bias" in n):
                parameter.zero_()
        scores, of_bare = (synflow(from_model(network, x, y)) for network in (model, bare))
        assert all(torch.equal(scores[layer], of_bare[layer]) for layer in scores), name


def test_relu6_lets_through_what_relu_does() -> None:
    """At its ceiling no gradient would flow, and every weight would score 0."""
    plain, capped = mlp(20, 30, 30, 3), mlp(20, 30, 30, 3)
    capped.relu1, capped.relu2 = nn.ReLU6(), nn.Sequential(nn.ReLU6())
    x, _ = batch((20,), 3)
    expected, scores = synflow(prunable_network(plain, x)), synflow(prunable_network(capped, x))
    assert all(torch.equal(expected[name], scores[name]) for name in expected)
    assert isinstance(capped.relu1, nn.ReLU6)


def test_deep_network_does_not_overflow() -> None:
    """In single precision the flow through 60 layers of 16 is infinite."""
    deep = drawn(mlp(*[16] * 61), 0).float()
    with torch.no_grad():
        for parameter in deep.parameters():
            parameter.mul_(5)
    scores = synflow(prunable_network(deep, torch.zeros(1, 16)))
    assert float(scores["fc1.weight"].sum()) > torch.finfo(torch.float32).max
    assert all(bool(score.isfinite().all()) for score in scores.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "density"),
    [((20, 90, 10, 90, 5), 0.004), ((20, *[12] * 5, 5), 0.015)],
    ids=["wide", "deep"],
)
def test_hundred_rounds_collapse_no_layer_where_one_round_does(
    sizes: tuple[int, ...], density: float
) -> None:
    model, x = mlp(*sizes), torch.zeros(1, sizes[0])
    fields = {"when": "before", "score": "synflow", "scope": "global", "fraction": 1 - density}
    network = prunable_network(model, x)
    one, many = (pruned(network, rounds=rounds, **fields) for rounds in (1, ROUNDS))
    assert counts(pruned(network, **fields)) == counts(many)  # a hundred are the default
    assert 0 in counts(one)
    assert 0 not in counts(many)
    assert sum(counts(many)) == sum(counts(one))
