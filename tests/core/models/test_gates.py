"""Gates of channels: their places, their start, their effect."""

from dataclasses import replace

import pytest
import torch
from odd_nets import Through
from structures import FAMILIES, GREY, difference, stirred
from torch import Tensor, nn

from lth_core import models
from lth_core.errors import SpecError
from lth_core.models.channels import channels_of
from lth_core.models.gates import GATE, add_gates, gated
from lth_core.spec import ModelSpec
from lth_core.train.loop import state_of


def places(model: nn.Module) -> list[str]:
    """Names of the batch norms with gates."""
    return [n.removesuffix(GATE) for n, _ in model.named_parameters() if n.endswith(GATE)]


def with_gates(name: str, shape: tuple[int, ...], seed: int = 0, **fields: object) -> nn.Module:
    spec = ModelSpec(name=name, gates=True, **fields)  # type: ignore[arg-type]
    return models.build(spec, shape, 10, torch.Generator().manual_seed(seed))


COLOUR = (3, 16, 16)


@pytest.mark.parametrize("layers", [11, pytest.param(16, marks=pytest.mark.slow)])
def test_every_convolution_of_a_vgg_has_gates(layers: int) -> None:
    names = places(with_gates(f"vgg-{layers}", COLOUR, width=0.05))
    assert names == [f"norm{number}" for number in range(1, layers - 2)]


@pytest.mark.parametrize("name", ["resnet-8", pytest.param("resnet-20", marks=pytest.mark.slow)])
def test_inner_channels_of_cifar_resnets_alone_have_gates(name: str) -> None:
    blocks = (int(name.removeprefix("resnet-")) - 2) // 6
    names = places(with_gates(name, (3, 8, 8), width=0.25))
    assert names == [f"stages.{s}_{b}.norm1" for s in (1, 2, 3) for b in range(1, blocks + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_bottlenecks_have_gates_after_their_first_two_norms_and_the_stem_has_none(
    stem: str,
) -> None:
    names = places(with_gates("resnet-50", (3, 32, 32), stem=stem))
    blocks = [(stage, b) for stage, n in ((1, 3), (2, 4), (3, 6), (4, 3)) for b in range(n)]
    assert names == [f"layer{s}.{b}.bn{n}" for s, b in blocks for n in (1, 2)]


@pytest.mark.slow
def test_inner_channels_of_torchvisions_basic_blocks_have_gates() -> None:
    names = places(with_gates("resnet-18", (3, 8, 8)))
    assert names == [f"layer{s}.{b}.bn1" for s in (1, 2, 3, 4) for b in (0, 1)]


@pytest.mark.slow
def test_stem_expanded_channels_and_last_convolution_of_mobilenet_have_gates() -> None:
    """One gate of each expanded channel, behind the expansion; the first block expands nothing."""
    names = places(with_gates("mobilenet-v2", (3, 8, 8), width=1.0))
    expanded = [f"features.{block}.conv.0.1" for block in range(2, 18)]
    assert names == ["features.0.1", *expanded, "features.18.1"]


@pytest.mark.parametrize("name", ["lenet-5", "conv-4", "mlp", "vit-tiny", "lstm"])
def test_network_without_batch_norm_behind_convolutions_is_refused(name: str) -> None:
    spec, shape = FAMILIES[name]
    with pytest.raises(SpecError, match=f"needs convolutions with batch norm .* {name} lacks") as e:
        models.build(replace(spec, gates=True), shape, 10, torch.Generator())
    assert e.value.field == "prune.when"


@pytest.mark.parametrize("init", ["kaiming_normal", "as_built"])
@pytest.mark.parametrize("norms", ["ones", "half", "uniform"])
def test_weights_are_drawn_as_those_of_the_network_without_gates(init: str, norms: str) -> None:
    spec = ModelSpec(name="resnet-8", width=0.25, init=init, norm_init=norms)  # type: ignore[arg-type]
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    plain = state_of(models.build(spec, (3, 8, 8), 10, draws[0]))
    state = state_of(models.build(replace(spec, gates=True), (3, 8, 8), 10, draws[1]))
    assert set(state.keys() - plain.keys()) == {n for n in state if n.endswith(GATE)}
    assert all(torch.equal(plain[name], state[name]) for name in plain)
    assert all((state[name] == 1).all() for name in state.keys() - plain.keys())
    assert torch.equal(draws[0].get_state(), draws[1].get_state())


def test_gates_multiply_the_norms_output_before_the_activation() -> None:
    """A negative gate turns a channel over, which behind a ReLU it could not."""
    seen: dict[str, Tensor] = {}
    model = with_gates("vgg-11", COLOUR, width=0.05).eval()
    norm = model.get_submodule("norm1")
    gate = norm.get_parameter("gate")
    norm.register_forward_hook(lambda module, args, output: seen.update(out=output))
    x = torch.randn(2, *COLOUR, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model(x)
        plain = seen["out"]
        gate.copy_(torch.tensor([-0.5, 1.0, 0.0]))
        model(x)
    assert torch.equal(seen["out"], plain * gate.view(1, -1, 1, 1))
    assert plain.min() < 0


def test_gate_is_a_factor_of_the_norms_scale_and_shift() -> None:
    model = stirred(with_gates("resnet-8", (3, 8, 8), width=0.5))
    plain = stirred(models.build(ModelSpec(name="resnet-8", width=0.5), (3, 8, 8), 10,
                                 torch.Generator().manual_seed(0)))  # fmt: skip
    for name in places(model):
        gate, norm = model.get_submodule(name).get_parameter("gate"), plain.get_submodule(name)
        gate.data.uniform_(0, 1, generator=torch.Generator().manual_seed(5))
        for scaled in norm.parameters():
            scaled.data *= gate.data
    assert difference(model, plain, (3, 8, 8)) < 1e-5


# Networks of a user's


def places_in(model: nn.Module) -> list[str]:
    channels = channels_of(model, GREY)
    add_gates(model, "own", GREY)
    found = places(model)
    with_one = gated(channels, model)
    assert {p.rpartition(".")[0] for g in with_one.values() for p in (q.tensor for q in g.parts)
            if p.rpartition(".")[0] in found} == set(found)  # fmt: skip
    return found


def norm_net(norm: nn.Module, activation: nn.Module) -> nn.Module:
    return Through(
        lambda n, x: n.head(n.act(n.norm(n.conv(x))).mean((2, 3))),
        conv=nn.Conv2d(1, 4, 3), norm=norm, act=activation, head=nn.Linear(4, 10),
    )  # fmt: skip


ACTIVATIONS = [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(), nn.ELU(), nn.GELU(),
               nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Sigmoid(), nn.Tanh(),
               nn.Softplus(), nn.CELU(), nn.Hardsigmoid(), nn.SELU()]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_norm_before_any_activation_of_torchs_gets_gates(activation: nn.Module) -> None:
    assert places_in(norm_net(nn.BatchNorm2d(4), activation)) == ["norm"]


def test_norm_without_scale_or_statistics_of_its_own_gets_gates() -> None:
    assert places_in(norm_net(nn.BatchNorm2d(4, affine=False), nn.ReLU())) == ["norm"]
    assert places_in(norm_net(nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU())) == ["norm"]


def test_norm_without_an_activation_behind_it_gets_none() -> None:
    with pytest.raises(SpecError, match="needs convolutions with batch norm and an activation"):
        add_gates(norm_net(nn.BatchNorm2d(4), nn.Identity()), "own", GREY)


def test_joined_maps_have_gates_each_behind_its_own_norm() -> None:
    net = Through(
        lambda n, x: n.head(n.c(torch.cat([n.na(n.a(x)).relu(), n.nb(n.b(x)).relu()], 1))
                            .mean((2, 3))),
        a=nn.Conv2d(1, 2, 3), na=nn.BatchNorm2d(2), b=nn.Conv2d(1, 3, 3), nb=nn.BatchNorm2d(3),
        c=nn.Conv2d(5, 4, 3), head=nn.Linear(4, 10),
    )  # fmt: skip
    assert places_in(net) == ["na", "nb"]


def test_norm_of_joined_maps_has_one_gate_for_each_channel_once() -> None:
    net = Through(
        lambda n, x: n.head(n.norm(torch.cat([n.a(x), n.b(x)], 1)).relu().mean((2, 3))),
        a=nn.Conv2d(1, 2, 3), b=nn.Conv2d(1, 3, 3), norm=nn.BatchNorm2d(5), head=nn.Linear(5, 10),
    )  # fmt: skip
    hooks = len(net.get_submodule("norm")._forward_hooks)
    assert places_in(net) == ["norm"]
    assert len(net.get_submodule("norm")._forward_hooks) == hooks + 1


def test_norm_of_joined_maps_has_none_where_one_of_them_has_no_place() -> None:
    """Maps of b are added to others, so they can only be removed with them."""
    net = Through(
        lambda n, x: n.head(n.c(n.norm(torch.cat([n.a(x), n.b(x) + n.d(x)], 1)).relu())
                            .mean((2, 3))),
        a=nn.Conv2d(1, 2, 3), b=nn.Conv2d(1, 3, 3), d=nn.Conv2d(1, 3, 3), norm=nn.BatchNorm2d(5),
        c=nn.Conv2d(5, 4, 3), head=nn.Linear(4, 10),
    )  # fmt: skip
    with pytest.raises(SpecError, match="needs convolutions with batch norm"):
        add_gates(net, "own", GREY)


def test_channels_that_several_layers_read_have_no_gates() -> None:
    net = Through(
        lambda n, x: (lambda y: n.head((n.b(y) + n.c(y)).mean((2, 3))))(n.norm(n.a(x)).relu()),
        a=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), b=nn.Conv2d(2, 3, 3), c=nn.Conv2d(2, 3, 3),
        head=nn.Linear(3, 10),
    )  # fmt: skip
    with pytest.raises(SpecError, match="needs convolutions with batch norm"):
        add_gates(net, "own", GREY)
