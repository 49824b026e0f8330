"""Scores of channels against references that know no mask of weights and no groups."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from odd_nets import Through
from small_nets import batch, close, conv_net, prunable_network, pruned
from structures import FAMILIES, built, by_duration
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_core import models
from lth_core.errors import SpecError
from lth_core.models.channels import channels_of, kept_channels
from lth_core.models.gates import add_gates, gated
from lth_core.prune import prune
from lth_core.prune.network import PrunableNetwork, from_weights
from lth_core.prune.scores import SUMMED, scores_of
from lth_core.prune.structure import ChannelUnits
from lth_core.spec import ModelSpec, PruneSpec

SHAPE = (2, 4, 4)


def of_channels(network: PrunableNetwork, score: str) -> dict[str, Tensor]:
    """Scores of channels, by group."""
    units = ChannelUnits(network.channels())
    scores = scores_of(network, score)
    summed = score in SUMMED
    return {n: units.scores(scores, network.mask, n, summed) for n in units.channels}


def network_of(model: nn.Module, shape: tuple[int, ...], **fields: object) -> PrunableNetwork:
    x, y = batch(shape, 3, n=12)
    spec = PruneSpec(structure="channels", **fields)  # type: ignore[arg-type]
    dtype = next(model.parameters()).dtype
    return prunable_network(model, x.to(dtype), y, spec=spec)


def residual() -> nn.Module:
    """conv -> norm, + conv -> norm; and an inner convolution of its own."""

    def forward(n: Through, x: Tensor) -> Tensor:
        x = n.stem_norm(n.stem(x)).relu()
        x = (x + n.norm2(n.conv2(n.norm1(n.conv1(x)).relu()))).relu()
        logits: Tensor = n.head(x.mean((2, 3)))
        return logits

    stream = torch.Generator().manual_seed(4)
    net = Through(
        forward, stem=nn.Conv2d(2, 4, 3, padding=1), stem_norm=nn.BatchNorm2d(4),
        conv1=nn.Conv2d(4, 5, 3, padding=1), norm1=nn.BatchNorm2d(5),
        conv2=nn.Conv2d(5, 4, 3, padding=1), norm2=nn.BatchNorm2d(4), head=nn.Linear(4, 3),
    ).double()  # fmt: skip
    for parameter in net.parameters():
        parameter.data.normal_(generator=stream)
    return net


def depthwise() -> nn.Module:
    stream = torch.Generator().manual_seed(5)
    net = Through(
        lambda n, x: n.head(n.out(n.norm(n.deep(n.one(x).relu())).relu()).mean((2, 3))),
        one=nn.Conv2d(2, 4, 3, padding=1), deep=nn.Conv2d(4, 4, 3, padding=1, groups=4),
        norm=nn.BatchNorm2d(4), out=nn.Conv2d(4, 5, 1), head=nn.Linear(5, 3),
    ).double()  # fmt: skip
    for parameter in net.parameters():
        parameter.data.normal_(generator=stream)
    return net


def weight(net: nn.Module, name: str) -> Tensor:
    return net.get_parameter(f"{name}.weight").detach()


def test_slimming_is_the_size_of_the_norms_scale_and_of_coupled_channels_their_mean() -> None:
    net = residual()
    found = of_channels(network_of(net, SHAPE), "slimming")
    assert close(found["conv1.weight"], weight(net, "norm1").abs(), rtol=1e-6)
    both = (weight(net, "stem_norm").abs() + weight(net, "norm2").abs()) / 2
    assert close(found["stem.weight"], both, rtol=1e-6)


def test_slimming_of_a_depthwise_channel_is_the_scale_behind_it() -> None:
    net = depthwise()
    x, y = batch(SHAPE, 3)
    spec = PruneSpec(structure="channels", ignore=("out",))
    network = prunable_network(net, x, y, spec=spec)
    with pytest.raises(SpecError, match="batch norm behind every pruned layer, which out"):
        of_channels(network, "slimming")
    net.add_module("norm_out", nn.BatchNorm2d(5).double())
    net._forward = lambda n, x: n.head(  # type: ignore[assignment]
        n.norm_out(n.out(n.norm(n.deep(n.one(x).relu())).relu())).mean((2, 3))
    )
    found = of_channels(network_of(net, SHAPE), "slimming")
    assert close(found["one.weight"], weight(net, "norm").abs(), rtol=1e-6)


@pytest.mark.parametrize("make", [residual, depthwise, conv_net])
@pytest.mark.parametrize(
    ("score", "size"), [("magnitude", torch.abs), ("magnitude-squared", torch.square)]
)
def test_filters_of_l1_and_l2_norms_are_means_over_the_layers_that_produce_a_channel(
    make: Callable[[], nn.Module], score: str, size: Callable[[Tensor], Tensor]
) -> None:
    net = make()
    found = of_channels(network_of(net, SHAPE), score)
    for name, group in channels_of(net.float(), SHAPE).items():
        each = [size(net.get_parameter(p).detach()).flatten(1).mean(1) for p in group.producers]
        assert close(found[name], torch.stack(each).mean(0), rtol=1e-5)


def loss_without(net: nn.Module, scaled: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(torch.func.functional_call(net, scaled, (x,)), y)


FACTORS = {
    "residual": {"stem.weight": ["stem_norm", "norm2"], "conv1.weight": ["norm1"]},
    "depthwise": {"one.weight": ["norm"], "out.weight": ["out"]},
    "conv_net": {"conv1.weight": ["norm"], "conv2.weight": ["conv2"]},
}
"""Layers whose weight and bias a channel's factor multiplies: its norms, or its producer."""


@pytest.mark.parametrize("make", [residual, depthwise, conv_net])
def test_taylor_is_the_squared_derivative_of_the_loss_by_a_factor_of_the_channel(
    make: Callable[[], nn.Module],
) -> None:
    net = make()
    network = network_of(net, SHAPE, score="taylor")
    found, (x, y) = of_channels(network, "taylor"), network.batch()
    assert list(found) == list(FACTORS[make.__name__])
    for name, layers in FACTORS[make.__name__].items():
        factor = torch.ones(len(found[name]), dtype=torch.float64, requires_grad=True)
        scaled = {}
        for layer in layers:
            whole = isinstance(net.get_submodule(layer), nn.BatchNorm2d)
            for attribute in ("weight", "bias") if whole else ("weight",):
                value = net.get_parameter(f"{layer}.{attribute}").detach()
                scaled[f"{layer}.{attribute}"] = value * factor.view(-1, *[1] * (value.dim() - 1))
        (slope,) = torch.autograd.grad(loss_without(net.train(), scaled, x, y), factor)
        assert slope.abs().max() > 1e-3
        assert close(found[name], slope.square(), rtol=1e-3, atol=1e-12)


def test_taylor_behind_batch_norm_without_scales_is_refused() -> None:
    """There the loss does not depend on the size of a filter, and scores are rounding errors."""
    net = residual()
    net.norm1 = nn.BatchNorm2d(5, affine=False).double()
    with pytest.raises(
        SpecError, match=r"prune.score: needs scales in the batch norm behind conv1"
    ):
        of_channels(network_of(net, (2, 4, 4), score="taylor"), "taylor")


@pytest.mark.parametrize("make", [residual, depthwise, conv_net])
def test_snip_of_a_channel_is_the_sum_over_its_weights_and_a_mean_over_its_producers(
    make: Callable[[], nn.Module],
) -> None:
    net = make()
    network = network_of(net, SHAPE, score="snip")
    found, (x, y) = of_channels(network, "snip"), network.batch()
    sums = {}
    for name, group in network.channels().items():
        original = {p: net.get_parameter(p).detach() for p in group.producers}
        factors = {p: torch.ones_like(w, requires_grad=True) for p, w in original.items()}
        scaled = {p: original[p] * factors[p] for p in original}
        loss = loss_without(net.train(), scaled, x, y)
        slopes = torch.autograd.grad(loss, list(factors.values()))
        sums[name] = torch.stack([s.abs().flatten(1).sum(1) for s in slopes]).mean(0)
    ours, theirs = torch.cat(list(found.values())), torch.cat(list(sums.values()))
    assert close(ours / ours.sum(), theirs / theirs.sum(), rtol=1e-4)  # SNIP divides by the total


def test_gates_are_scores_of_their_channels() -> None:
    net = models.build(ModelSpec(name="resnet-8", width=0.25), (3, 8, 8), 10, torch.Generator())
    add_gates(net, "resnet-8", (3, 8, 8))
    for number, (name, gate) in enumerate(net.named_parameters()):
        if name.endswith(".gate"):
            gate.data.copy_(torch.arange(len(gate)) * 0.1 + number * 1e-4)
    plain = models.build(ModelSpec(name="resnet-8", width=0.25), (3, 8, 8), 10, torch.Generator())
    channels = gated(channels_of(plain, (3, 8, 8)), net)
    network = network_of(net, (3, 8, 8))
    network = PrunableNetwork(**{f: getattr(network, f) for f in network.__slots__}
                              | {"channels": lambda: channels})  # fmt: skip
    found = of_channels(network, "gates")
    assert list(found) == [f"stages.{s}_1.conv1.weight" for s in (1, 2, 3)]
    for name, values in found.items():
        norm = name.replace("conv1.weight", "norm1")
        assert close(values, net.get_submodule(norm).get_parameter("gate").detach(), rtol=1e-6)


def test_random_score_of_a_channel_is_uniform_whatever_the_size_of_its_filter() -> None:
    """Of a mean over many weights it would be near 1/2, so that large filters would never go first."""
    weights = {"small.weight": torch.zeros(600, 1, 1, 1), "large.weight": torch.zeros(600, 50, 3, 3),
               "output.weight": torch.zeros(2, 600)}  # fmt: skip
    spec = PruneSpec(
        structure="channels", score="random", when="before", scope="global", fraction=0.5
    )
    network = from_weights(weights, seed=3)
    mask = prune(network, spec, torch.Generator())
    left = [int(mask[f"{name}.weight"].flatten(1).any(1).sum()) for name in ("small", "large")]
    assert sum(left) == 600
    assert all(240 < n < 360 for n in left)
    fields = {f: getattr(network, f) for f in network.__slots__} | {"spec": spec}
    values = of_channels(PrunableNetwork(**fields), "random")
    for name in ("small.weight", "large.weight"):
        tenths = torch.histc(values[name].float(), 10, 0, 1)
        assert tenths.min() > 30
        assert tenths.max() < 95


@pytest.mark.parametrize("score", ["magnitude", "taylor", "snip", "random"])
@pytest.mark.parametrize("family", by_duration(["resnet-14", "mobilenet-v2"]))
def test_coupled_channels_of_residual_and_depthwise_networks_go_together(
    family: str, score: str
) -> None:
    model, shape = built(family)
    assert FAMILIES[family][1] == shape
    x, y = batch(shape, 10)
    when = "before" if score == "snip" else "after"
    spec = PruneSpec(structure="channels", scope="layerwise", score=score, when=when,
                     budget={"flops": 0.5})  # fmt: skip
    mask = prune(prunable_network(model, x.float(), y, spec=spec), spec, torch.Generator())
    if family == "resnet-14":
        stem = mask["stem.weight"].flatten(1).any(1)
        assert 0 < int(stem.sum()) < len(stem)
        for block in (1, 2):
            written = mask[f"stages.1_{block}.conv2.weight"].flatten(1).any(1)
            read = mask[f"stages.1_{block}.conv1.weight"].transpose(0, 1).flatten(1).any(1)
            assert torch.equal(written, stem)
            assert torch.equal(read, stem)
    else:
        for block in range(2, 18):
            expand, deep, out = (mask[f"features.{block}.conv.{i}.weight"]
                                 for i in ("0.0", "1.0", "2"))  # fmt: skip
            left = expand.flatten(1).any(1)
            assert torch.equal(left, deep.flatten(1).any(1))
            assert torch.equal(left, out.transpose(0, 1).flatten(1).any(1))
        for one, two in pairwise((4, 5, 6)):  # blocks of one stage add to each other
            name = "features.{}.conv.2.weight"
            assert torch.equal(
                mask[name.format(one)].flatten(1).any(1), mask[name.format(two)].flatten(1).any(1)
            )


# Maps that are joined


def joined() -> nn.Module:
    """Maps of a and b side by side, added to those of c, and read."""
    stream = torch.Generator().manual_seed(6)
    net = Through(
        lambda n, x: n.head((torch.cat([n.a(x), n.b(x)], 1) + n.c(x)).relu().mean((2, 3))),
        a=nn.Conv2d(2, 2, 3), b=nn.Conv2d(2, 3, 3), c=nn.Conv2d(2, 5, 3), head=nn.Linear(5, 3),
    ).double()  # fmt: skip
    for parameter in net.parameters():
        parameter.data.normal_(generator=stream)
    return net


@pytest.mark.parametrize("score", ["magnitude", "taylor", "snip", "random"])
def test_joined_maps_are_scored_and_pruned_with_the_maps_that_they_are_added_to(score: str) -> None:
    net = joined()
    network = network_of(net, SHAPE, score=score)
    found = of_channels(network, score)
    (name,) = found
    if score == "magnitude":
        beside = torch.cat([weight(net, "a"), weight(net, "b")]).abs().flatten(1).mean(1)
        own = weight(net, "c").abs().flatten(1).mean(1)
        assert close(found[name], (beside + own) / 2, rtol=1e-6)
    when = "before" if score == "snip" else "after"
    spec = PruneSpec(structure="channels", score=score, fraction=0.4, when=when)
    mask = prune(network, spec, torch.Generator())
    (kept,) = kept_channels(network.channels(), mask).values()
    order = found[name].argsort()
    assert set((~kept).nonzero().flatten().tolist()) == set(order[:2].tolist())
    assert torch.equal(mask["c.weight"].flatten(1).any(1), kept)
    assert torch.equal(mask["a.weight"].flatten(1).any(1), kept[:2])
    assert torch.equal(mask["b.weight"].flatten(1).any(1), kept[2:])
    assert torch.equal(mask["head.weight"].any(0), kept)


@pytest.mark.parametrize("scope", ["layerwise", "global", "erk", "like:magnitude"])
def test_shares_of_coupled_channels_are_pruned_in_every_scope(scope: str) -> None:
    """A layer whose channels are counted with another layer's has no units of its own."""
    mask = pruned(network_of(residual(), SHAPE), structure="channels", scope=scope, fraction=0.4)
    kept = [int(m.flatten(1).any(1).sum()) for m in mask.values()]
    assert kept[0] == kept[2]
    assert kept[0] + kept[1] == 9 - round(0.4 * 4) - round(0.4 * 5)
