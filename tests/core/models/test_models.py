from math import sqrt

import pytest
import torch
from torch import nn

from lth_core import models
from lth_core.errors import SpecError
from lth_core.models.layers import prunable_layers
from lth_core.models.networks.conv import __doc__ as conv_docs
from lth_core.spec import ModelSpec

GREY, COLOUR, DIGIT = (1, 28, 28), (3, 32, 32), (1, 8, 8)


def build(shape: tuple[int, ...] = DIGIT, seed: int = 0, **fields: object) -> nn.Module:
    return models.build(ModelSpec(**fields), shape, 10, torch.Generator().manual_seed(seed))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def conv(inputs: int, outputs: int) -> int:
    return 9 * inputs * outputs + outputs


def fc(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


HEAD = fc(256, 256) + fc(256, 10)
TWO = conv(3, 64) + conv(64, 64)
FOUR = TWO + conv(64, 128) + conv(128, 128)
SIX = FOUR + conv(128, 256) + conv(256, 256)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("lenet-300-100", GREY, 266_610),
        ("conv-2", COLOUR, TWO + fc(64 * 16 * 16, 256) + HEAD),
        ("conv-4", COLOUR, FOUR + fc(128 * 8 * 8, 256) + HEAD),
        ("conv-6", COLOUR, SIX + fc(256 * 4 * 4, 256) + HEAD),
        ("resnet-20", COLOUR, 272_474),
    ],
)
def test_parameter_counts_are_the_published_ones(
    name: str, shape: tuple[int, ...], parameters: int
) -> None:
    model = build(shape, name=name)
    assert count(model) == parameters
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


def test_conv_2_4_6_have_the_parameters_of_the_layers_the_paper_lists() -> None:
    """4.30M, 2.43M, 2.26M: convolutions, then 256-256-10 (Frankle & Carbin 2019, figure 2)."""
    totals = TWO + fc(16384, 256) + HEAD, FOUR + fc(8192, 256) + HEAD, SIX + fc(4096, 256) + HEAD
    assert totals == (4_301_642, 2_425_930, 2_262_602)


@pytest.mark.parametrize(
    ("name", "every", "convolutions"),
    [
        ("conv-2", 4_300_992, 38_592),  # printed: 4.3M / 38K
        ("conv-4", 2_425_024, 259_776),  # 2.4M / 260K
        ("conv-6", 2_261_184, 1_144_512),  # 1.7M / 1.1M: the total does not fit the layers
    ],
)
def test_weights_of_conv_2_4_6_stand_beside_those_that_the_paper_prints(
    name: str, every: int, convolutions: int
) -> None:
    weights = {
        layer: weight.numel()
        for layer, (_, weight) in prunable_layers(build(COLOUR, name=name)).items()
    }
    assert sum(weights.values()) == every
    assert sum(n for layer, n in weights.items() if layer.startswith("conv")) == convolutions
    assert f"{every:,} / " in conv_docs
    assert f"{convolutions:,}\n" in conv_docs


def test_resnet_20_with_running_statistics_has_274042_numbers() -> None:
    state = build(COLOUR, name="resnet-20").state_dict()
    assert sum(v.numel() for name, v in state.items() if "num_batches" not in name) == 274_042


def test_resnet_20_prunes_no_normalization() -> None:
    model = build(COLOUR, name="resnet-20")
    weights = sum(layer.weight.numel() for layer in prunable_layers(model).values())
    norms = sum(
        p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
    )
    assert weights + norms + 10 == 272_474  # and the ten biases of the output
    assert list(prunable_layers(model))[-1] == "output"


@pytest.mark.parametrize(
    ("fields", "shape", "hidden"),
    [
        ({"widths": (20,)}, DIGIT, [20]),
        ({"widths": (20,), "depth": 3}, DIGIT, [20, 20, 20]),
        ({"widths": (20, 5), "width": 0.5}, DIGIT, [10, 2]),
        ({"widths": (20, 5), "width": 0.01}, DIGIT, [1, 1]),
        ({"name": "lenet-300-100", "width": 0.1}, GREY, [30, 10]),
        ({"name": "conv-2", "width": 0.25}, DIGIT, [16, 16, 64, 64]),
        ({"name": "conv-2", "depth": 4, "width": 1 / 64}, DIGIT, [1, 1, 2, 2, 4, 4]),
    ],
)
def test_width_scales_and_depth_counts_hidden_layers(
    fields: dict[str, object], shape: tuple[int, ...], hidden: list[int]
) -> None:
    layers = prunable_layers(build(shape, **fields))
    assert [layer.weight.shape[0] for layer in layers.values()] == [*hidden, 10]


def test_resnet_depth_is_6n_plus_2() -> None:
    layers = prunable_layers(build(DIGIT, name="resnet-20", depth=8, width=0.25))
    assert len([name for name in layers if "shortcut" not in name]) == 8
    assert layers["stem"].weight.shape[0] == 4


@pytest.mark.parametrize(
    ("fields", "shape", "field"),
    [
        ({"name": "lenet-4"}, DIGIT, "model.name"),
        ({"name": "lenet-5"}, (1, 15, 15), "model.name"),
        ({"name": "lenet-5", "depth": 5}, GREY, "model.depth"),
        ({"name": "vgg-16", "depth": 12}, COLOUR, "model.depth"),
        ({"name": "vgg-16"}, DIGIT, "model.name"),
        ({"name": "resnet-18", "depth": 20}, COLOUR, "model.depth"),
        ({"name": "resnet-18", "width": 0.5}, COLOUR, "model.width"),
        ({"name": "resnet-50", "dropout": 0.1}, COLOUR, "model.dropout"),
        ({"name": "resnet-18"}, (40,), "model.name"),
        ({"name": "resnet-20", "dropout": 0.1}, COLOUR, "model.dropout"),
        ({"name": "resnet-20", "stem": "imagenet"}, COLOUR, "model.stem"),
        ({"name": "mobilenet-v2", "depth": 2}, COLOUR, "model.depth"),
        ({"name": "mobilenet-v2"}, (40,), "model.name"),
        ({"name": "vgg-11", "stem": "imagenet"}, COLOUR, "model.stem"),
        ({"name": "conv-2", "stem": "imagenet"}, COLOUR, "model.stem"),
        ({"stem": "imagenet"}, COLOUR, "model.stem"),
        ({"name": "resnet-20", "depth": 19}, DIGIT, "model.depth"),
        ({"name": "resnet-20"}, (64,), "model.name"),
        ({"name": "conv-2", "depth": 3}, DIGIT, "model.depth"),
        ({"name": "conv-6"}, (1, 4, 4), "model.name"),
        ({"name": "conv-2"}, (64,), "model.name"),
        ({"name": "lenet-300-100", "depth": 2}, DIGIT, "model.depth"),
        *(
            ({"name": name, "widths": (20,)}, COLOUR, "model.widths")
            for name in (
                "lenet-300-100",
                "lenet-5",
                "conv-2",
                "vgg-11",
                "resnet-20",
                "resnet-18",
                "mobilenet-v2",
                "vit-tiny",
                "lstm",
            )
        ),
        ({"name": "toys:absent"}, DIGIT, "model.name"),
        ({"name": "nowhere:net"}, DIGIT, "model.name"),
        ({"name": ":net"}, DIGIT, "model.name"),
    ],
)
def test_model_that_does_not_exist_or_fit_is_refused_by_its_field(
    fields: dict[str, object], shape: tuple[int, ...], field: str
) -> None:
    with pytest.raises(SpecError) as refused:
        build(shape, **fields)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("init", "std", "uniform"),
    [
        ("kaiming_normal", lambda fan_in, fan_out: sqrt(2 / fan_in), False),
        ("kaiming_uniform", lambda fan_in, fan_out: sqrt(2 / fan_in), True),
        ("xavier_normal", lambda fan_in, fan_out: sqrt(2 / (fan_in + fan_out)), False),
        ("xavier_uniform", lambda fan_in, fan_out: sqrt(2 / (fan_in + fan_out)), True),
        ("lecun_normal", lambda fan_in, fan_out: sqrt(1 / fan_in), False),
    ],
)
@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2"])
def test_weights_have_the_distribution_named(
    name: str, init: str, std: object, uniform: bool
) -> None:
    for layer in prunable_layers(build(GREY, name=name, init=init)).values():
        weight = layer.weight.detach()
        if weight.numel() < 5000:
            continue
        window = weight[0, 0].numel()  # 9 for a 3x3 convolution, 1 for a linear layer
        expected = std(weight.shape[1] * window, weight.shape[0] * window)  # type: ignore[operator]
        assert weight.std().item() == pytest.approx(expected, rel=0.04)
        assert weight.mean().item() == pytest.approx(0, abs=0.05 * expected)
        bound = sqrt(3) * expected
        assert (weight.abs().max().item() <= bound * 1.0001) == uniform
        assert not layer.module.bias.detach().any()


def test_signed_constant_has_one_magnitude_and_even_signs() -> None:
    """sqrt(2/fan in), Ramanujan et al. 2020; batch norm and the others as they were built."""
    model = build(COLOUR, name="vgg-11", init="signed_constant")
    for layer in prunable_layers(model).values():
        weight = layer.weight.detach()
        fan_in = weight[0].numel()
        assert torch.equal(weight.abs(), torch.full_like(weight, sqrt(2 / fan_in)))
        positive = (weight > 0).float().mean().item()
        assert positive == pytest.approx(0.5, abs=4 * 0.5 / sqrt(weight.numel()))
        assert not layer.module.bias.detach().any()
    norm = model.get_submodule("norm1")
    assert bool((norm.weight == 1).all())  # type: ignore[union-attr]


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("init", ["kaiming_normal", "as_built"])
def test_norm_init_draws_the_scales_of_batch_norm_from_0_to_1_and_nothing_else(init: str) -> None:
    """As open_lth's `bn_initializers.uniform`, the default of its CIFAR ResNets and VGGs."""
    plain, drawn = (
        build(COLOUR, seed=3, name="resnet-8", init=init, norm_init=norm_init)
        for norm_init in ("ones", "uniform")
    )
    scales = torch.cat([norm.weight.detach() for norm in batch_norms(drawn)])
    assert len(scales) == 16 + 2 * 16 + 3 * 32 + 3 * 64  # of the stem, then of three blocks
    assert 0 <= scales.min().item() < 0.02
    assert 0.98 < scales.max().item() < 1
    assert scales.mean().item() == pytest.approx(0.5, abs=4 / sqrt(12 * len(scales)))
    assert not any(norm.bias.detach().any() for norm in batch_norms(drawn))
    assert all((norm.weight == 1).all() for norm in batch_norms(plain))
    names = {id(norm.weight) for norm in batch_norms(drawn)}
    before = plain.state_dict()
    for name, value in drawn.state_dict(keep_vars=True).items():
        assert id(value) in names or torch.equal(value, before[name])


def test_norm_init_draws_anew_for_each_seed() -> None:
    one, again, other = (
        batch_norms(build(COLOUR, seed=seed, name="resnet-8", norm_init="uniform"))[0].weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["lenet-300-100", "vit-tiny"])
def test_norm_init_of_a_network_without_batch_norm_is_refused(name: str) -> None:
    """Layer norm, as in vit-tiny, is not drawn."""
    with pytest.raises(SpecError, match=rf"which {name} lacks, .*'uniform'") as refused:
        build(COLOUR, name=name, norm_init="uniform")
    assert refused.value.field == "model.norm_init"


def test_as_built_keeps_what_the_factory_drew() -> None:
    def own_draw() -> list[nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            return [nn.Linear(64, 20), nn.Linear(20, 10)]

    built = prunable_layers(build(widths=(20,), init="as_built", seed=4)).values()
    for layer, drawn in zip(built, own_draw(), strict=True):
        assert torch.equal(layer.weight, drawn.weight)
        assert torch.equal(layer.module.bias, drawn.bias)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"init": "as_built"},
        {"name": "toys:batch_norm_net"},
        {"name": "lenet-5", "init": "signed_constant"},
        {"name": "vgg-11", "width": 1 / 16},
        {"name": "resnet-18"},
        {"name": "mobilenet-v2", "init": "as_built"},
    ],
)
def test_build_repeats_by_its_seed_and_leaves_the_global_generator(
    fields: dict[str, object],
) -> None:
    before = torch.random.get_rng_state()
    one, again, other = (
        torch.cat([p.flatten() for p in build((3, 16, 16), seed, **fields).parameters()])
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_only_a_users_model_is_pinned_by_its_source() -> None:
    assert models.fingerprint(ModelSpec()) == ""
    assert len(models.fingerprint(ModelSpec(name="toys:batch_norm_net"))) == 64


def test_a_constant_input_takes_the_place_of_biases() -> None:
    """Same function, same count; what was bias is in the weight, so a mask reaches it."""
    model = build(name="mlp-constant", widths=(6, 5), init="as_built")
    plain = build(name="mlp", widths=(6, 5))
    assert count(model) == count(plain)
    assert not any(name.endswith("bias") for name, _ in model.named_parameters())
    with torch.no_grad():
        for name, layer in prunable_layers(plain).items():
            whole = prunable_layers(model)[name].weight
            layer.weight.copy_(whole[:, :-1])
            layer.module.bias.copy_(whole[:, -1])
    x = torch.randn(3, *DIGIT)
    torch.testing.assert_close(model(x), plain(x))
