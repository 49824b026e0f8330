"""Named networks against the publications they are named after."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lth_core import models
from lth_core.models.layers import parameter_of, prunable_layers
from lth_core.spec import ModelSpec

pytestmark = pytest.mark.slow

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def build(
    name: str, shape: tuple[int, ...] = COLOUR, classes: int = 10, **fields: object
) -> nn.Module:
    spec = ModelSpec(name=name, **fields)
    return models.build(spec, shape, classes, torch.Generator().manual_seed(0))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("lenet-5", GREY, 431_080),
        ("vgg-11", COLOUR, 9_231_114),
        ("vgg-13", COLOUR, 9_416_010),
        ("vgg-16", COLOUR, 14_728_266),
        ("vgg-19", COLOUR, 20_040_522),
        ("resnet-8", COLOUR, 78_042),
        ("resnet-14", COLOUR, 175_258),
        ("resnet-18", COLOUR, 11_173_962),
        ("resnet-50", COLOUR, 23_520_842),
        ("mobilenet-v2", COLOUR, 2_236_682),
        # Patches, positions, blocks (norms, attention, two linear layers), norm, output.
        (
            "vit-tiny",
            COLOUR,
            64 * 49 + 64 * 64 + 4 * (256 + 192 * 65 + 64 * 65 + 128 * 65 + 64 * 129) + 128 + 650,
        ),
        ("lstm", (1, 8, 8), 4 * 64 * (8 + 64 + 2) + 650),
    ],
)
def test_network_has_its_known_parameters(
    name: str, shape: tuple[int, ...], parameters: int
) -> None:
    assert count(build(name, shape)) == parameters


@pytest.mark.parametrize(
    ("name", "published", "ours"),
    [
        ("resnet-20", 0.27e6, 272_474),
        ("resnet-32", 0.46e6, 466_906),
        ("resnet-44", 0.66e6, 661_338),
        ("resnet-56", 0.85e6, 855_770),
        ("resnet-110", 1.7e6, 1_730_714),
    ],
)
def test_cifar_resnets_have_the_papers_parameters_beside_two_projections(
    name: str, published: float, ours: int
) -> None:
    """He et al. 2016, table 6, whose shortcuts have no parameters (option A); ours are 1x1
    convolutions with batch norm where the channels double."""
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert count(build(name)) == ours
    assert ours - projections == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet-18", 11_689_512), ("resnet-50", 25_557_032), ("mobilenet-v2", 3_504_872)],
)
def test_imagenet_stem_is_the_published_network(name: str, parameters: int) -> None:
    """Counts that torchvision documents beside its weights."""
    import torchvision.models

    ours = build(name, (3, 64, 64), 1000, stem="imagenet")
    theirs = getattr(torchvision.models, name.replace("-", "_" if "v2" in name else ""))()
    assert count(ours) == parameters
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize(
    ("name", "last", "stem", "side"),
    [
        ("resnet-18", "layer4", "cifar", 4),
        ("resnet-18", "layer4", "imagenet", 1),
        ("resnet-50", "layer4", "cifar", 4),
        ("mobilenet-v2", "features", "cifar", 4),
        ("mobilenet-v2", "features", "imagenet", 1),
    ],
)
def test_cifar_stem_leaves_four_pixels_of_32_before_the_mean(
    name: str, last: str, stem: str, side: int
) -> None:
    seen: list[torch.Size] = []
    model = build(name, stem=stem).eval()
    model.get_submodule(last).register_forward_hook(lambda m, i, out: seen.append(out.shape[2:]))
    model(torch.zeros(1, *COLOUR))
    assert seen == [(side, side)]


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", ["resnet-18", "mobilenet-v2"])
def test_torchvisions_networks_take_grey_images(name: str, stem: str) -> None:
    model = build(name, (1, 32, 32), stem=stem)
    assert next(iter(prunable_layers(model).values())).weight.shape[1] == 1
    assert model.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_every_network_trains_one_step_and_ends_in_its_output(name: str) -> None:
    model = build(name, COLOUR, 7).train()
    stream = torch.Generator().manual_seed(1)
    x, y = torch.randn(4, *COLOUR, generator=stream), torch.arange(4)
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    assert bool(loss.isfinite())
    for layer in prunable_layers(model):
        name_of = parameter_of(layer)
        assert not torch.equal(before[name_of], dict(model.named_parameters())[name_of]), layer
    assert list(prunable_layers(model).values())[-1].weight.shape[0] == 7


@pytest.mark.parametrize(
    ("name", "fields", "channels"),
    [
        ("lenet-5", {"width": 0.1}, [2, 5, 50, 10]),
        ("lenet-5", {"width": 1e-9}, [1, 1, 1, 10]),
        ("vgg-11", {"width": 1 / 64}, [1, 2, 4, 4, 8, 8, 8, 8, 10]),
        ("vgg-19", {"width": 1 / 64, "depth": 11}, [1, 2, 4, 4, 8, 8, 8, 8, 10]),
        ("vgg-11", {"width": 1 / 64, "depth": 13}, [1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 10]),
    ],
)
def test_width_and_depth_scale_lenet_5_and_vgg(
    name: str, fields: dict[str, object], channels: list[int]
) -> None:
    layers = prunable_layers(build(name, **fields)).values()
    assert [layer.weight.shape[0] for layer in layers] == channels


def test_mobilenets_width_is_torchvisions() -> None:
    """The stem's 32 channels, to the nearest multiple of 8."""
    wide, narrow = (
        next(iter(prunable_layers(build("mobilenet-v2", width=w)).values())).weight.shape[0]
        for w in (1.4, 0.5)
    )
    assert (wide, narrow) == (48, 16)


@pytest.mark.parametrize(("shape", "inputs"), [((1, 16, 16), 50), ((3, 32, 40), 50 * 5 * 7)])
def test_lenet_5_fits_any_image_of_16_pixels_or_more(shape: tuple[int, ...], inputs: int) -> None:
    model = build("lenet-5", shape)
    assert prunable_layers(model)["fc1"].weight.shape == (500, inputs)
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


def test_vgg_takes_the_mean_over_larger_images() -> None:
    model = build("vgg-11", (3, 64, 48), width=1 / 64)
    assert prunable_layers(model)["output"].weight.shape == (10, 8)
    assert model(torch.zeros(2, 3, 64, 48)).shape == (2, 10)
