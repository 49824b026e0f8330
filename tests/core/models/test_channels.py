"""Which channels of a network can be removed, and what goes with each."""

from collections.abc import Callable

import pytest
import torch
from odd_nets import SOUND, Through
from structures import FAMILIES, GREY, built, random_kept
from torch import Tensor, nn

from lth_core.errors import SpecError
from lth_core.masks import parameter_of
from lth_core.models.channels import (
    ChannelGroup,
    Part,
    channels_of,
    kept_channels,
    kept_entries,
    masks_of,
)
from lth_core.models.layers import prunable_layers

SLOW = ("resnet-18", "resnet-50", "mobilenet-v2")


def parts_of(group: ChannelGroup) -> dict[tuple[str, int], Part]:
    return {(part.tensor, part.dim): part for part in group.parts}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FAMILIES]
)
def test_groups_are_disjoint_and_the_output_layer_is_in_none(name: str) -> None:
    model, shape = built(name)
    channels = channels_of(model, shape)
    producers = [weight for group in channels.values() for weight in group.producers]
    assert len(set(producers)) == len(producers)
    *_, output = map(parameter_of, prunable_layers(model))
    assert output not in producers
    order = [parameter_of(layer) for layer in prunable_layers(model)]
    assert [order.index(name) for name in channels] == sorted(order.index(n) for n in channels)
    for name, group in channels.items():
        assert name == group.producers[0]
        for part in group.parts:
            assert int(part.channel.max()) == group.size - 1


def test_plain_convolutions_are_a_group_each() -> None:
    model, shape = built("vgg-11")
    channels = channels_of(model, shape)
    assert list(channels) == [f"conv{number}.weight" for number in range(1, 9)]
    group = channels["conv1.weight"]
    assert group.producers == ("conv1.weight",)
    assert {(part.tensor, part.dim): part.produces for part in group.parts} == {
        ("conv1.weight", 0): True, ("conv1.bias", 0): False, ("norm1.weight", 0): False,
        ("norm1.bias", 0): False, ("norm1.running_mean", 0): False,
        ("norm1.running_var", 0): False, ("conv2.weight", 1): False,
    }  # fmt: skip


def test_channels_that_a_residual_network_adds_are_one_group_a_stage() -> None:
    model, shape = built("resnet-14")
    channels = channels_of(model, shape)
    inner = [f"stages.{stage}_{block}.conv1.weight" for stage in (1, 2, 3) for block in (1, 2)]
    first = ("stem.weight", "stages.1_1.conv2.weight", "stages.1_2.conv2.weight")
    assert channels["stem.weight"].producers == first
    second = ("stages.2_1.conv2.weight", "stages.2_1.shortcut.conv.weight",
              "stages.2_2.conv2.weight")  # fmt: skip
    assert channels["stages.2_1.conv2.weight"].producers == second
    assert set(channels) == {*inner, "stem.weight", *(
        f"stages.{stage}_1.conv2.weight" for stage in (2, 3))}  # fmt: skip
    read = parts_of(channels["stem.weight"])
    assert {name for name, dim in read if dim == 1} == {
        "stages.1_1.conv1.weight", "stages.1_2.conv1.weight", "stages.2_1.conv1.weight",
        "stages.2_1.shortcut.conv.weight",
    }  # fmt: skip


@pytest.mark.slow
def test_depthwise_convolution_goes_with_the_one_before_it() -> None:
    model, shape = built("mobilenet-v2")
    channels = channels_of(model, shape)
    name, depthwise, reader = (f"features.2.conv.{part}.weight" for part in ("0.0", "1.0", "2"))
    group = channels[name]
    assert group.producers == (name, depthwise)
    parts = parts_of(group)
    assert parts[depthwise, 0].produces
    assert not parts[reader, 1].produces
    assert (depthwise, 1) not in parts


def test_flattened_channel_has_an_input_for_each_of_its_16_positions() -> None:
    model, shape = built("conv-4")
    assert shape == (3, 16, 16)
    group = channels_of(model, shape)["conv4.weight"]
    read = parts_of(group)["fc1.weight", 1].channel
    assert read.tolist() == [i for i in range(group.size) for _ in range(16)]


def test_constant_input_of_mlp_constant_belongs_to_no_channel() -> None:
    model, shape = built("mlp-constant")
    read = parts_of(channels_of(model, shape)["fc1.weight"])["fc2.weight", 1].channel
    assert read.tolist() == [*range(12), -1]


def test_attention_and_recurrent_layers_keep_their_channels() -> None:
    assert list(channels_of(*built("vit-tiny"))) == ["blocks.0.fc1.weight", "blocks.1.fc1.weight"]
    assert channels_of(*built("lstm")) == {}


# Networks of a user's


def maps(function: Callable[[Through, Tensor], Tensor], inputs: int = 6 * 64) -> nn.Module:
    """A convolution of 6 maps, a function of the network and them, and a linear layer."""
    return Through(
        lambda n, x: n.head(function(n, n.a(x)).flatten(1)),
        a=nn.Conv2d(1, 6, 3, padding=1), head=nn.Linear(inputs, 10),
    )  # fmt: skip


FIXED: dict[str, Callable[[], nn.Module]] = {
    "view": lambda: maps(lambda n, x: x.view(-1, 6 * 64)),
    "softmax over channels": lambda: maps(lambda n, x: x.softmax(1)),
    "mean over channels": lambda: maps(lambda n, x: x - x.mean(1, keepdim=True)),
    "channels split in two": lambda: maps(
        lambda n, x: x[:, :3] * x[:, 3:].sigmoid(), inputs=3 * 64),
    "a chunk for each half": lambda: Through(
        lambda n, x: n.head(torch.mul(*n.a(x.flatten(1)).chunk(2, 1))),
        a=nn.Linear(64, 24), head=nn.Linear(12, 10)),
    "joined, then flattened": lambda: Through(
        lambda n, x: n.head(torch.cat([n.a(x).relu(), n.b(x).sigmoid()], 1).flatten(1)),
        a=nn.Conv2d(1, 4, 3, padding=1), b=nn.Conv2d(1, 5, 3, padding=1),
        head=nn.Linear(9 * 64, 10)),
    "group norm": lambda: Through(
        lambda n, x: n.head(n.norm(n.a(x)).flatten(1)),
        a=nn.Conv2d(1, 6, 3, padding=1), norm=nn.GroupNorm(3, 6), head=nn.Linear(6 * 64, 10)),
    "channels of the data": lambda: Through(
        lambda n, x: n.head(n.a(x.flatten(1)) + x.flatten(1)),
        a=nn.Linear(64, 64), head=nn.Linear(64, 10)),
    "groups": lambda: Through(
        lambda n, x: n.head(n.b(n.a(x)).mean((2, 3))),
        a=nn.Conv2d(1, 6, 3), b=nn.Conv2d(6, 6, 3, groups=2), head=nn.Linear(6, 10)),
    "two maps of each": lambda: Through(
        lambda n, x: n.head(n.b(n.a(x)).mean((2, 3))),
        a=nn.Conv2d(1, 6, 3), b=nn.Conv2d(6, 12, 3, groups=6), head=nn.Linear(12, 10)),
    "shared weights": SOUND["tied"],
    "size over channels": lambda: maps(
        lambda n, x: x / (x.square().mean(1, keepdim=True) + 1).sqrt()),
    "less the largest channel": lambda: maps(lambda n, x: x - x.amax(1, keepdim=True)),
    "times a little of the channel beside it": lambda: maps(
        lambda n, x: x * (1 + 0.1 * x.roll(1, 1))),
    "a layer that is not in the graph": SOUND["idle"],
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_channels_that_the_code_counts_on_stay(name: str) -> None:
    assert channels_of(FIXED[name](), GREY) == {}


@pytest.mark.parametrize("width", [8, 64])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.amax(1, keepdim=True),
        lambda x: x.relu() - x.relu().amax(1, keepdim=True),
        lambda x: x * x.relu().amax(1, keepdim=True).sigmoid(),
        lambda x: nn.functional.normalize(x, 1),
    ],
)
def test_channels_that_all_others_depend_on_stay_whatever_their_weights(
    function: Callable[[Tensor], Tensor], width: int
) -> None:
    for seed in range(6):  # without a channel at 0 a maximum is the same in most of them
        torch.manual_seed(seed)
        model = Through(
            lambda n, x: n.head(function(n.a(x.flatten(1)))),
            a=nn.Linear(64, width), head=nn.Linear(width, 10),
        )  # fmt: skip
        assert channels_of(model, GREY) == {}


def test_pruned_weights_of_a_deep_network_hide_no_channels() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(80) for layer in (nn.Linear(128, 128), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), *layers, nn.Linear(128, 10))
    names = list(channels_of(model, GREY))
    assert len(names) == 81
    for layer in model[2:-1:2]:
        layer.weight.data *= torch.rand(128, 128) < 0.2
    assert list(channels_of(model, GREY)) == names


def test_layers_that_share_weight_and_bias_keep_their_channels() -> None:
    for seed in range(20):  # in some draws a noise input alone would not tell
        torch.manual_seed(seed)
        model = SOUND["tied"]()
        model.get_submodule("two").bias = model.get_submodule("one").bias
        assert channels_of(model, GREY) == {}


def test_output_that_is_0_at_first_hides_nothing() -> None:
    model = maps(lambda n, x: x.softmax(1))
    nn.init.zeros_(model.get_parameter("head.weight"))
    assert channels_of(model, GREY) == {}


def test_only_the_groups_that_the_code_counts_on_stay() -> None:
    model = Through(
        lambda n, x: n.head(n.b(n.a(x.flatten(1)).relu()).softmax(1)),
        a=nn.Linear(64, 12), b=nn.Linear(12, 8), head=nn.Linear(8, 10),
    )  # fmt: skip
    assert list(channels_of(model, GREY)) == ["a.weight"]


def test_inputs_of_a_transposed_convolution_are_its_first_dimension() -> None:
    channels = channels_of(SOUND["transposed"](), GREY)
    assert list(channels) == ["down.weight", "up.weight"]
    assert ("up.weight", 0) in parts_of(channels["down.weight"])
    assert parts_of(channels["up.weight"])["up.weight", 1].produces


def test_layer_that_is_called_twice_is_one_producer_and_reader() -> None:
    model = Through(
        lambda n, x: n.head(n.b(n.b(n.a(x.flatten(1)).relu()).relu()).relu()),
        a=nn.Linear(64, 12), b=nn.Linear(12, 12), head=nn.Linear(12, 10),
    )  # fmt: skip
    (group,) = channels_of(model, GREY).values()
    assert group.producers == ("a.weight", "b.weight")
    assert {("b.weight", 0), ("b.weight", 1), ("head.weight", 1)} <= parts_of(group).keys()


@pytest.mark.slow
def test_network_that_torch_pruning_cannot_follow_is_refused() -> None:
    from torchvision.models import shufflenet_v2_x0_5

    with pytest.raises(
        SpecError, match=r"model.name: must be a network that torch-pruning can fol"
    ):
        channels_of(shufflenet_v2_x0_5(), (3, 64, 64))


# Masks


def test_masks_leave_out_outputs_biases_norms_and_inputs_of_removed_channels() -> None:
    model, shape = built("conv-4")
    channels = channels_of(model, shape)
    kept = {"conv1.weight": torch.tensor([True, False, True, True, True, False])}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    masks = masks_of(channels, kept, shapes)
    assert masks.keys() == {"conv1.weight", "conv1.bias", "conv2.weight"}
    expected = kept["conv1.weight"]
    assert torch.equal(masks["conv1.bias"], expected)
    assert torch.equal(masks["conv1.weight"], expected.view(-1, 1, 1, 1).expand(6, 3, 3, 3))
    assert torch.equal(masks["conv2.weight"], expected.view(1, -1, 1, 1).expand(6, 6, 3, 3))
    assert kept_entries(channels, {}) == {}


@pytest.mark.parametrize("name", ["mlp", "mlp-constant", "conv-4", "resnet-14"])
def test_kept_channels_are_read_from_a_mask(name: str) -> None:
    model, shape = built(name)
    channels = channels_of(model, shape)
    kept = random_kept(channels, 4)
    shapes = {n: parameter.shape for n, parameter in model.named_parameters()}
    full = {n: torch.ones(s, dtype=torch.bool) for n, s in shapes.items()}
    read = kept_channels(channels, {**full, **masks_of(channels, kept, shapes)})
    assert {n: k.tolist() for n, k in read.items()} == {n: k.tolist() for n, k in kept.items()}
