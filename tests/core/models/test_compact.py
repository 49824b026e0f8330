"""Smaller networks that compute the same: in evaluation mode, with batch norm's statistics stirred."""

from collections.abc import Callable

import pytest
import torch
from odd_nets import SOUND, Through, counting
from structures import (
    FAMILIES,
    GREY,
    built,
    by_duration,
    difference,
    pruned,
    random_kept,
    sizes,
    stirred,
    structured,
)
from torch import nn
from torch.nn.functional import relu6

from lth_core import masks
from lth_core.errors import SpecError
from lth_core.masks import Mask
from lth_core.models.channels import channels_of, kept_channels, without_channels
from lth_core.models.compact import compact
from lth_core.models.layers import set_use, use_of

pytestmark = pytest.mark.slow

FAST = ("mlp", "mlp-constant", "lstm")


def mask_of(model: nn.Module, **rows: object) -> Mask:
    """A full mask, but for the named layers' rows (`name=[...]`) or columns (`name_in=[...]`)."""
    mask = masks.ones(model)
    for name, gone in rows.items():
        if name.endswith("_in"):
            mask[f"{name.removesuffix('_in')}.weight"][:, gone] = False
        else:
            mask[f"{name}.weight"][gone] = False
    return mask


def checked(model: nn.Module, mask: Mask, shape: tuple[int, ...] = GREY) -> nn.Module:
    """The smaller network, after a check that it computes the same."""
    smaller = compact(model, mask, shape)
    assert difference(smaller, pruned(model, mask), shape) < 1e-5
    return smaller


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", by_duration(FAMILIES, FAST))
def test_random_structure_becomes_a_network_of_its_kept_channels(name: str, seed: int) -> None:
    model, shape = built(name, seed)
    channels = channels_of(model, shape)
    kept = random_kept(channels, seed)
    mask = structured(model, channels, kept)
    assert {n: k.tolist() for n, k in kept_channels(channels, mask).items()} == {
        n: k.tolist() for n, k in kept.items()
    }
    smaller = checked(model, mask, shape)
    assert sizes(smaller) == sizes(without_channels(model, channels, kept))
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, smaller))
    assert after < before or name == "lstm"


def test_network_without_removable_channels_stays_the_same() -> None:
    model, shape = built("lstm")
    assert channels_of(model, shape) == {}
    assert sizes(compact(model, masks.ones(model), shape)) == sizes(model)


def test_full_mask_removes_nothing() -> None:
    model, shape = built("conv-4")
    assert sizes(checked(model, masks.ones(model), shape)) == sizes(model)


def test_network_itself_does_not_change_and_frozen_weights_stay_frozen() -> None:
    model = linear()
    model.get_parameter("one.weight").requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    smaller = checked(model, mask_of(model, one=[1], two_in=[2]))
    assert not smaller.get_parameter("one.weight").requires_grad
    assert smaller.get_parameter("two.weight").requires_grad
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_smaller_network_is_in_the_mode_of_the_network() -> None:
    model, shape = built("mlp")
    assert compact(model.train(), masks.ones(model), shape).training
    assert not compact(model.eval(), masks.ones(model), shape).training


# Dead channels of unstructured masks


def linear(activation: Callable[[torch.Tensor], torch.Tensor] = torch.relu) -> nn.Module:
    net = Through(
        lambda n, x: n.head(activation(n.two(activation(n.one(x.flatten(1)))))),
        one=nn.Linear(64, 12), two=nn.Linear(12, 8, bias=False), head=nn.Linear(8, 10),
    )  # fmt: skip
    return stirred(net)


def convolutions(**options: object) -> nn.Module:
    """Two convolutions, of which the second has no bias; options are the second's."""
    two = nn.Conv2d(6, 4, bias=False, **options)
    side = two(torch.zeros(1, 6, 8, 8)).shape[-1]
    return stirred(Through(
        lambda n, x: n.head(torch.sigmoid(n.two(torch.sigmoid(n.norm(n.one(x))))).flatten(1)),
        one=nn.Conv2d(1, 6, 3, padding=1), norm=nn.BatchNorm2d(6), two=two,
        head=nn.Linear(4 * side * side, 10),
    ))  # fmt: skip


@pytest.mark.parametrize("activation", [torch.relu, torch.sigmoid, nn.functional.gelu, torch.cos])
def test_channel_that_no_weight_reads_goes(
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    model = linear(activation)
    smaller = checked(model, mask_of(model, two_in=[0, 5], head_in=[7]))
    assert sizes(smaller)["one.weight"] == (10, 64)
    assert sizes(smaller)["two.weight"] == (7, 10)


@pytest.mark.parametrize("activation", [torch.relu, torch.sigmoid, nn.functional.gelu, torch.cos])
def test_constant_neuron_is_folded_into_a_bias_that_is_made_where_there_is_none(
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    model = linear(activation)
    smaller = checked(model, mask_of(model, one=[1, 2, 3]))
    assert sizes(smaller)["one.weight"] == (9, 64)
    assert sizes(smaller)["two.bias"] == (8,)


def test_removed_channels_make_others_dead_until_none_is_left() -> None:
    """Neuron 3 of `one` is read by neuron 5 of `two` alone, which has no other input and no reader."""
    model = linear()
    mask = mask_of(model, head_in=[5], two_in=[3])
    mask["two.weight"][5, 3] = True
    smaller = checked(model, mask)
    assert (sizes(smaller)["one.weight"], sizes(smaller)["two.weight"]) == ((11, 64), (7, 11))
    forward = mask_of(model, one=list(range(11)))
    forward["two.weight"][0, 11] = False  # neuron 0 of `two` has constant inputs alone
    smaller = checked(model, forward)
    assert (sizes(smaller)["one.weight"], sizes(smaller)["two.weight"]) == ((1, 64), (7, 1))


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({"kernel_size": 3, "padding": 1}, 6),  # near the border the constant is beside zeros
        ({"kernel_size": 3, "padding": "same"}, 6),
        ({"kernel_size": 3, "padding": 0}, 4),
        ({"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, 4),
        ({"kernel_size": 1, "padding": "same"}, 4),
    ],
)
def test_constant_map_is_folded_except_beside_zero_padding(
    options: dict[str, object], channels: int
) -> None:
    model = convolutions(**options)
    smaller = checked(model, mask_of(model, one=[0, 4]))
    assert sizes(smaller)["one.weight"][0] == channels
    assert sizes(smaller)["two.weight"][1] == channels


def test_map_that_is_constantly_zero_goes_in_spite_of_padding() -> None:
    model, shape = built("conv-4")
    model.get_parameter("conv1.bias").data.copy_(-torch.arange(6.0))
    smaller = checked(model, mask_of(model, conv1=[2, 5]), shape)
    assert sizes(smaller)["conv1.weight"][0] == 4
    positive = mask_of(model, conv1=[2, 5])
    model.get_parameter("conv1.bias").data[5] = 1
    assert sizes(checked(model, positive, shape))["conv1.weight"][0] == 5


def test_each_position_of_a_flattened_map_is_folded_by_itself() -> None:
    """Its positions are not equal: behind a padded convolution, the border differs."""
    model = stirred(Through(
        lambda n, x: n.head(torch.relu(n.depthwise(torch.sigmoid(n.one(x)))).flatten(1)),
        one=nn.Conv2d(1, 4, 3, padding=1), depthwise=nn.Conv2d(4, 4, 3, padding=1, groups=4),
        head=nn.Linear(4 * 64, 10),
    ))  # fmt: skip
    smaller = checked(model, mask_of(model, one=[1]))
    assert sizes(smaller)["depthwise.weight"][0] == 3


def test_layer_without_any_channel_that_matters_keeps_one() -> None:
    model, shape = built("conv-4")
    mask = mask_of(model)
    mask["conv2.weight"][:] = False
    model.get_parameter("conv2.bias").data.zero_()
    smaller = checked(model, mask, shape)
    assert sizes(smaller)["conv2.weight"] == (1, 1, 3, 3)


def test_channels_that_are_added_go_only_together() -> None:
    model = stirred(Through(
        lambda n, x: n.head((n.norm(n.a(x)) + n.b(x)).relu().mean((2, 3))),
        a=nn.Conv2d(1, 6, 3, padding=1), norm=nn.BatchNorm2d(6), b=nn.Conv2d(1, 6, 1),
        head=nn.Linear(6, 10),
    ))  # fmt: skip
    smaller = checked(model, mask_of(model, a=[0, 1, 2], b=[2, 3]))
    assert sizes(smaller)["a.weight"][0] == sizes(smaller)["b.weight"][0] == 5


def test_depthwise_channel_goes_where_its_own_weights_or_those_before_it_are_gone() -> None:
    model = stirred(Through(
        lambda n, x: n.head(n.two(n.depthwise(n.one(x).relu()).relu()).flatten(1)),
        one=nn.Conv2d(1, 6, 3), depthwise=nn.Conv2d(6, 6, 3, groups=6), two=nn.Conv2d(6, 2, 3),
        head=nn.Linear(2 * 2 * 2, 10),
    ))  # fmt: skip
    smaller = checked(model, mask_of(model, one=[0], depthwise=[1, 3]))
    assert sizes(smaller)["depthwise.weight"] == (3, 1, 3, 3)
    assert sizes(smaller)["one.weight"][0] == 3


def test_constant_that_padding_changes_stays_whatever_the_scale_of_its_norm() -> None:
    """relu((0 - 2) 0.1 + 1) is 0.8, and with a scale of 1 it would be 0, which padding leaves."""
    model = stirred(Through(
        lambda n, x: n.head(n.two(n.depthwise(n.norm(n.one(x)).relu())).mean((2, 3))),
        one=nn.Conv2d(1, 4, 3, bias=False), norm=nn.BatchNorm2d(4),
        depthwise=nn.Conv2d(4, 4, 3, padding=1, groups=4), two=nn.Conv2d(4, 6, 1),
        head=nn.Linear(6, 10),
    ))  # fmt: skip
    for name, value in {"running_mean": 2, "running_var": 1, "weight": 0.1, "bias": 1}.items():
        getattr(model.norm, name).data[2] = value
    assert sizes(checked(model, mask_of(model, one=[2])))["one.weight"][0] == 4
    model.norm.weight.data[2] = 1
    assert sizes(checked(model, mask_of(model, one=[2])))["one.weight"][0] == 3


def test_weight_that_is_zero_but_kept_counts_as_kept() -> None:
    """Training can change it."""
    model = linear()
    model.get_parameter("one.weight").data[3] = 0
    model.get_parameter("two.weight").data[:, 4] = 0
    assert sizes(checked(model, masks.ones(model))) == sizes(model)


def test_channel_that_happens_to_be_off_stays() -> None:
    """A bias of -200 turns it off for all likely examples, not for all."""
    model = linear()
    model.get_parameter("one.bias").data[3] = -200
    model.get_parameter("one.weight").data[3] *= 1e-3
    assert sizes(checked(model, masks.ones(model))) == sizes(model)


def test_depthwise_channel_that_happens_to_be_off_stays() -> None:
    """Of the values from 0 to 6 that relu6 gives, the norm and the second relu6 make one."""
    model = stirred(Through(
        lambda n, x: n.head(relu6(n.norm(n.depthwise(relu6(n.one(x))))).mean((2, 3))),
        one=nn.Conv2d(1, 4, 3), depthwise=nn.Conv2d(4, 4, 1, groups=4), norm=nn.BatchNorm2d(4),
        head=nn.Linear(4, 10),
    ))  # fmt: skip
    model.get_parameter("one.bias").data[3] = -200
    model.get_parameter("one.weight").data[3] *= 1e-3
    model.get_buffer("norm.running_mean")[3] = -100
    assert sizes(checked(model, masks.ones(model))) == sizes(model)


@pytest.mark.parametrize("name", by_duration(FAMILIES))
def test_sparse_ticket_of_each_family_loses_its_dead_channels_alone(name: str) -> None:
    """2% of the weights kept at random: few channels keep inputs and outputs."""
    model, shape = built(name)
    stream = torch.Generator().manual_seed(3)
    mask = {n: torch.rand(m.shape, generator=stream) < 0.02 for n, m in masks.ones(model).items()}
    smaller = checked(model, mask, shape)
    assert sum(p.numel() for p in smaller.parameters()) <= sum(
        p.numel() for p in model.parameters()
    ) + sum(p.numel() for n, p in smaller.named_parameters() if n.endswith("bias"))


# Networks of a user's


def joined() -> nn.Module:
    """Two convolutions side by side, read by a third."""
    return stirred(Through(
        lambda n, x: n.head(n.c(torch.cat([torch.sigmoid(n.a(x)), n.b(x).relu()], 1)).mean((2, 3))),
        a=nn.Conv2d(1, 4, 3), b=nn.Conv2d(1, 5, 3), c=nn.Conv2d(9, 6, 3), head=nn.Linear(6, 10),
    ))  # fmt: skip


def added() -> nn.Module:
    def forward(n: Through, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(n.a(x))
        return n.head((x + n.c(torch.tanh(n.b(x)))).mean((2, 3)))

    return stirred(Through(forward, a=nn.Conv2d(1, 6, 3), b=nn.Conv2d(6, 5, 3, padding=1),
                           c=nn.Conv2d(5, 6, 1), head=nn.Linear(6, 10)))  # fmt: skip


def flattened() -> nn.Module:
    return convolutions(kernel_size=3, padding=1)


def upwards() -> nn.Module:
    """A transposed convolution, whose weight has its inputs first."""
    return stirred(SOUND["transposed"]())


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
@pytest.mark.parametrize("make", [joined, added, flattened, upwards])
def test_network_of_a_users_becomes_smaller(make: Callable[[], nn.Module], seed: int) -> None:
    model = make()
    channels = channels_of(model, GREY)
    kept = random_kept(channels, seed)
    smaller = checked(model, structured(model, channels, kept))
    assert sizes(smaller) == sizes(without_channels(model, channels, kept))
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


def test_constants_of_joined_maps_are_folded_from_their_places() -> None:
    model = joined()
    smaller = checked(model, mask_of(model, a=[1], b=[0, 4]))
    assert sizes(smaller)["c.weight"] == (6, 6, 3, 3)


def test_layer_that_reads_none_of_the_constant_channels_of_joined_maps_stays() -> None:
    model = Through(
        lambda n, x: n.head(
            (lambda y: y + n.two(n.one(y).relu()))(
                torch.cat([n.stem(x).relu(), n.grow(n.stem(x).relu()).relu()], 1)
            ).mean((2, 3))
        ),
        stem=nn.Conv2d(1, 6, 3, padding=1), grow=nn.Conv2d(6, 4, 3, padding=1),
        one=nn.Conv2d(10, 8, 3, padding=1), two=nn.Conv2d(8, 10, 3, padding=1),
        head=nn.Linear(10, 10),
    )  # fmt: skip
    mask = mask_of(model, grow=[1, 2], two=[7, 8])
    before = sizes(model)["one.weight"]
    assert sizes(checked(stirred(model), mask))["one.weight"] <= before


def test_unit_that_only_the_padding_id_turns_off_stays() -> None:
    model = Through(
        lambda n, x: n.b((n.a(n.words(x.long())).sigmoid() * (x != 0)[..., None]).sum(1)),
        words=nn.Embedding(12, 8), a=nn.Linear(8, 6), b=nn.Linear(6, 12),
    )  # fmt: skip
    set_use(model, use_of(model, (6,)))
    mask = mask_of(model, a=[3, 5])
    smaller = compact(model, {n: m for n, m in mask.items() if n != "words.weight"}, (6,))
    ids = torch.randint(0, 12, (32, 6)).float()
    with torch.no_grad():
        assert torch.allclose(smaller(ids), pruned(model, mask)(ids), atol=1e-5)


def test_buffers_that_a_run_changes_stay() -> None:
    model = nn.Sequential(counting(None, GREY, 10))
    smaller = compact(model, masks.ones(model), GREY)
    assert float(smaller.get_buffer("0.calls")) == 0


class Picky(nn.Module):
    """Code that takes 6 or 3 channels, which looks as if it took any number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] in (6, 3)
        return x


def test_code_that_fails_with_fewer_channels_is_refused() -> None:
    net = Through(
        lambda n, x: n.head(n.picky(n.a(x)).flatten(1)),
        a=nn.Conv2d(1, 6, 3), picky=Picky(), head=nn.Linear(6 * 36, 10),
    )  # fmt: skip
    with pytest.raises(SpecError, match=r"model.name: cannot be made smaller: it fails with fewer"):
        compact(net, mask_of(net, head_in=list(range(36))), GREY)


def test_code_that_depends_on_the_number_of_channels_is_refused() -> None:
    net = Through(
        lambda n, x: n.head((lambda y: y * (1 + y.shape[1] % 3))(n.a(x)).flatten(1)),
        a=nn.Conv2d(1, 6, 3), head=nn.Linear(6 * 36, 10),
    )  # fmt: skip
    with pytest.raises(SpecError, match=r"cannot be made smaller: its own code depends on the ch"):
        compact(net, mask_of(net, head_in=list(range(36))), GREY)
