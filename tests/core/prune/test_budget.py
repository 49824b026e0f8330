"""Budgets: the channels of lowest score go until the network costs no more than a limit."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_nets import batch, conv_net, prunable_network
from structures import built, by_duration, random_kept
from torch import Tensor, nn

from lth_core import masks
from lth_core.errors import SpecError
from lth_core.masks import Mask
from lth_core.models.channels import (
    Channels,
    Kept,
    channels_of,
    kept_channels,
    masks_of,
    without_channels,
)
from lth_core.models.costs import costs_of
from lth_core.models.positions import shapes_and_positions
from lth_core.prune import at_level, compounded, prune
from lth_core.prune.budget import check_budget, fewest_removals, removal_order
from lth_core.prune.network import PrunableNetwork, from_model
from lth_core.spec import PruneSpec

PRUNED = ("vgg-11", "conv-4", "lenet-5", "resnet-14", "resnet-18", "resnet-50", "mobilenet-v2")
QUICK = ("conv-4", "lenet-5")
BUDGETS = (0.9, 0.7, 0.5, 0.3, 0.15)


@cache
def network_of(family: str) -> tuple[PrunableNetwork, nn.Module, tuple[int, ...]]:
    model, shape = built(family)
    channels, costs = channels_of(model, shape), costs_of(model, shape)
    x, y = batch(shape, 10)
    network = from_model(model, x.float(), y)
    return replace(network, channels=lambda: channels, costs=lambda: costs), model, shape


def measured(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Costs of a network as it is: of a smaller one, of which no mask is asked."""
    layers = shapes_and_positions(model, shape).values()
    return {
        "flops": sum(2 * torch.Size(s).numel() * positions for s, positions in layers),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def convolutions(channels: Channels, mask: Mask) -> Channels:
    return {n: g for n, g in channels.items() if all(mask[p].dim() > 2 for p in g.producers)}


@pytest.mark.parametrize("family", by_duration(PRUNED, QUICK))
@pytest.mark.parametrize("kind", ["flops", "parameters"])
@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_cost_is_within_the_budget_and_one_channel_more_would_exceed_it(
    family: str, kind: str, scope: str
) -> None:
    network, model, shape = network_of(family)
    units = convolutions(network.channels(), network.mask)
    costs, full = network.costs(), measured(model, shape)[kind]
    # Linear layers stay, so that of LeNet-5's parameters no more than a part can go.
    least = costs.of(kind, {n: torch.arange(g.size) == 0 for n, g in units.items()}) / full
    for budget in BUDGETS:
        budget = least + budget * (1 - least)
        spec = PruneSpec(
            structure="channels", scope=scope, budget={kind: budget}, score="random", when="before"
        )
        mask = prune(network, spec, torch.Generator().manual_seed(2))
        kept = kept_channels(network.channels(), mask)
        assert all(k.any() for k in kept.values())
        cost = costs.of(kind, kept)
        assert cost <= budget * full
        if cost < (budget - 1e-3) * full:
            dearest = max(
                costs.of(kind, {**kept, name: kept[name] | (torch.arange(g.size) == int(gone[0]))})
                for name, g in units.items()
                if len(gone := (~kept[name]).nonzero().flatten())
            )
            assert dearest > budget * full


@pytest.mark.parametrize("family", by_duration(PRUNED, QUICK))
def test_costs_are_those_of_the_network_with_the_channels_cut_out(family: str) -> None:
    network, model, shape = network_of(family)
    kept = random_kept(network.channels(), seed=1)
    smaller = measured(without_channels(model, network.channels(), kept), shape)
    assert network.costs().flops(kept) == smaller["flops"]
    assert network.costs().parameters(kept) == smaller["parameters"]


@pytest.mark.parametrize("kind", ["flops", "parameters"])
def test_bisection_finds_what_trying_every_number_of_removals_finds(kind: str) -> None:
    """By mean size of their weights, without the largest of each layer, which stays."""
    network = small_network(wide=True)
    costs, units = network.costs(), network.channels()
    means = {n: network.weights[n].abs().flatten(1).double().mean(1) for n in units}
    order = sorted((float(means[n][i]), n, int(i)) for n in units for i in means[n].argsort()[:-1])
    choices = [{name: torch.ones(g.size, dtype=torch.bool) for name, g in units.items()}]
    for _, name, channel in order:
        choices.append({**choices[-1], name: choices[-1][name].clone()})
        choices[-1][name][channel] = False
    for budget in torch.linspace(0.1, 1, 19).tolist():
        limit = budget * costs.of(kind, {})
        expected = next(kept for kept in choices if costs.of(kind, kept) <= limit)
        spec = PruneSpec(structure="channels", scope="global", budget={kind: budget})
        got = kept_channels(units, prune(network, spec, torch.Generator()))
        assert all(torch.equal(got[name], kept) for name, kept in expected.items())


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 100))
def test_fewest_removals_is_the_first_of_falling_costs_within_the_limit(
    savings: list[int], limit: int
) -> None:
    costs = [100]
    for saving in savings:
        costs.append(costs[-1] - saving)
    expected = next((n for n, cost in enumerate(costs) if cost <= limit), None)
    assert fewest_removals(len(savings), costs.__getitem__, limit) == expected


scores = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=6)


@given(st.lists(scores, min_size=1, max_size=4), st.sampled_from(["global", "layerwise"]),
       st.integers(0, 99))  # fmt: skip
def test_order_leaves_the_highest_of_each_layer_and_goes_by_score(
    values: list[list[float]], scope: str, seed: int
) -> None:
    named = {str(i): torch.tensor(v) for i, v in enumerate(values)}
    alive = {name: torch.ones(len(v), dtype=torch.bool) for name, v in named.items()}
    order = removal_order(named, alive, scope, torch.Generator().manual_seed(seed))
    assert len(order) == len(set(order)) == sum(len(v) - 1 for v in values)
    for name, v in named.items():
        own = [i for n, i in order if n == name]
        (left,) = set(range(len(v))) - set(own)
        assert v[left] == v.max()
        assert [float(v[i]) for i in own] == sorted(float(v[i]) for i in own)
    removed = [float(named[n][i]) for n, i in order]
    assert scope == "layerwise" or removed == sorted(removed)


def test_dead_channels_are_neither_removed_again_nor_the_last_that_stays() -> None:
    alive = {"a": torch.tensor([False, True, True])}
    order = removal_order({"a": torch.tensor([9.0, 1.0, 2.0])}, alive, "global", torch.Generator())
    assert order == [("a", 1)]


@cache
def small_network(wide: bool = False) -> PrunableNetwork:
    """A network whose channels and costs are found once."""
    network = prunable_network(wide_net() if wide else conv_net(), *batch((2, 4, 4), 3))
    channels, costs = network.channels(), network.costs()
    return replace(network, channels=lambda: channels, costs=lambda: costs)


def tied(seed: int, scope: str) -> Kept:
    network = small_network()
    ones = {name: torch.ones_like(w) for name, w in network.weights.items()}
    spec = PruneSpec(structure="channels", scope=scope, budget={"flops": 0.6})
    mask = prune(replace(network, weights=ones), spec, torch.Generator().manual_seed(seed))
    return kept_channels(network.channels(), mask)


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_ties_are_drawn_by_the_seed(scope: str) -> None:
    drawn = [{n: tuple(k.tolist()) for n, k in tied(seed, scope).items()} for seed in range(12)]
    again = [{n: tuple(k.tolist()) for n, k in tied(seed, scope).items()} for seed in range(12)]
    assert drawn == again
    for name in drawn[0]:
        each = torch.tensor([d[name] for d in drawn]).float().mean(0)
        assert len({d[name] for d in drawn}) > 2
        assert (each < 1).all()  # by position, the last would always stay


def small(**fields: object) -> Callable[[Mask | None], Mask]:
    network = small_network(wide=True)
    spec = PruneSpec(structure="channels", scope="global", **fields)  # type: ignore[arg-type]

    def pruned(mask: Mask | None) -> Mask:
        start = network.with_mask(mask) if mask else network
        return prune(start, spec, torch.Generator().manual_seed(1))

    return pruned


def wide_net() -> nn.Sequential:
    net = conv_net()
    net.conv1, net.norm, net.conv2 = (
        nn.Conv2d(2, 30, 3, padding=1),
        nn.BatchNorm2d(30),
        nn.Conv2d(30, 40, 2),
    )
    net.output = nn.Linear(40, 3)
    return net.double()


def share(mask: Mask, kind: str = "flops") -> float:
    model = wide_net().float()
    costs = costs_of(model, (2, 4, 4))
    return costs.of(kind, kept_channels(costs.channels, mask)) / costs.of(kind, {})


def test_levels_multiply_the_budget_iteratively_and_at_once() -> None:
    network = small_network(wide=True)
    spec = PruneSpec(structure="channels", scope="global", budget={"flops": 0.6})
    for level in (1, 2, 3):
        iterative = prune(network, at_level(spec, level), torch.Generator().manual_seed(1))
        once = prune(network, compounded(spec, level), torch.Generator().manual_seed(1))
        assert masks.digest(iterative) == masks.digest(once)
        assert 0.6**level - 0.03 < share(iterative) <= 0.6**level
    first = prune(network, at_level(spec, 1), torch.Generator().manual_seed(1))
    second = prune(network.with_mask(first), at_level(spec, 2), torch.Generator().manual_seed(1))
    assert masks.nested(second, first)
    assert 0.36 - 0.03 < share(second) <= 0.36


def test_rounds_reach_the_budget_by_equal_factors() -> None:
    once, thrice = (
        small(when="before", rounds=n, budget={"parameters": 0.3})(None) for n in (1, 3)
    )
    for mask in (once, thrice):
        assert 0.27 < share(mask, "parameters") <= 0.3


def test_budget_of_one_removes_nothing() -> None:
    assert all(m.all() for m in small(budget={"flops": 1.0})(None).values())


@pytest.mark.parametrize("kind", ["flops", "parameters"])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_error_says_the_smallest_possible_budget_and_that_is_enough(kind: str, levels: int) -> None:
    network = small_network(wide=True)
    spec = PruneSpec(structure="channels", scope="global", budget={kind: 1e-6})
    with pytest.raises(SpecError, match="the cost with one channel in each pruned layer") as found:
        check_budget(network.costs(), spec, network.channels(), levels)
    assert found.value.field == f"prune.budget.{kind}"
    least = float(found.value.rule.split()[4].rstrip(","))
    check_budget(network.costs(), replace(spec, budget={kind: least}), network.channels(), levels)
    lower = replace(spec, budget={kind: least * 0.998})
    with pytest.raises(SpecError):
        check_budget(network.costs(), lower, network.channels(), levels)


def test_budget_is_a_share_of_the_network_that_is_not_widened() -> None:
    network = small_network(wide=True)
    narrow = costs_of(conv_net().float(), (2, 4, 4))
    costs = replace(network.costs(), whole=narrow)
    spec = PruneSpec(structure="channels", scope="global", budget={"flops": 0.8})
    mask = prune(replace(network, costs=lambda: costs), spec, torch.Generator())
    cost = costs.flops(kept_channels(network.channels(), mask))
    assert 0.5 * narrow.flops({}) < cost <= 0.8 * narrow.flops({})


def test_units_of_an_ignored_layer_stay() -> None:
    network = small_network(wide=True)
    spec = PruneSpec(structure="channels", scope="global", budget={"flops": 0.8}, ignore=("conv1",))
    kept = kept_channels(network.channels(), prune(network, spec, torch.Generator()))
    assert kept["conv1.weight"].all()
    assert not kept["conv2.weight"].all()


def test_masks_of_a_removed_channel_are_those_of_all_that_it_takes_along() -> None:
    model, shape = built("conv-4")
    channels = channels_of(model, shape)
    kept = {name: torch.arange(group.size) > 0 for name, group in channels.items()}
    shapes = {name: p.shape for name, p in model.named_parameters()}
    found: dict[str, Tensor] = masks_of(channels, kept, shapes)
    assert not found["conv1.bias"][0]
    assert not found["conv1.weight"][0].any()
    assert not found["conv2.weight"][:, 0].any()
    assert found["conv2.weight"][1:, 1:].all()
