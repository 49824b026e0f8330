"""The textbook loop does the same work as ours: the same pixels, the same masked network."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lth_core.models.layers import prunable_layers
from lth_core.models.networks.resnet import resnet
from lth_core.spec import ModelSpec
from sweeps.bench.baselines import images, textbook


def _net() -> nn.Module:
    return resnet(8)(ModelSpec(name="resnet-8", width=0.25), (3, 8, 8), 4)


def _mask(model: nn.Module) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        f"{name}.weight": torch.rand(layer.weight.shape, generator=draw) < 0.5
        for name, layer in prunable_layers(model).items()
    }


@pytest.mark.slow  # imports torchvision
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_image_is_normalized_as_ours_is(shape: tuple[int, ...]) -> None:
    name = images.MNIST if shape[0] == 1 else images.CIFAR10
    split = images.made_up(3, shape)
    dataset = images._dataset(name, split, split)
    read = textbook.transform(images.MEAN[name], images.STD[name], False)
    x, y = textbook.Images(split, read)[1]
    assert y == 1
    torch.testing.assert_close(x, dataset.normalize(split.x[1:2])[0])


@pytest.mark.slow
def test_image_is_read_as_torchvision_reads_mnist(tmp_path) -> None:
    from torchvision.datasets import MNIST

    split, folder = images.made_up(4, (1, 28, 28)), tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    header = np.array([2051, 4, 28, 28], ">i4").tobytes()
    (folder / "train-images-idx3-ubyte").write_bytes(header + split.x.numpy().tobytes())
    labels = np.array([2049, 4], ">i4").tobytes() + bytes(split.y.tolist())
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    for part in ("images-idx3", "labels-idx1"):
        (folder / f"t10k-{part}-ubyte").write_bytes((folder / f"train-{part}-ubyte").read_bytes())
    read = textbook.transform((0.1307,), (0.3081,), False)
    theirs, ours = MNIST(str(tmp_path), transform=read), textbook.Images(split, read)
    for number in range(4):
        assert theirs[number][1] == ours[number][1]
        assert torch.equal(theirs[number][0], ours[number][0])


@pytest.mark.slow
def test_augmented_image_keeps_its_size_and_varies() -> None:
    read = textbook.transform(images.MEAN[images.CIFAR10], images.STD[images.CIFAR10], True)
    image = Image.fromarray(images.made_up(1, (3, 32, 32)).x[0].permute(1, 2, 0).numpy())
    found = torch.stack([read(image) for _ in range(8)])
    assert found.shape == (8, 3, 32, 32)
    assert len(found.unique(dim=0)) > 1


def test_masked_network_computes_what_the_network_with_zeroed_weights_does() -> None:
    model, x = _net().eval(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    masked = textbook.with_masks(model, _mask(model)).eval()
    with torch.no_grad():
        for name, kept in _mask(model).items():
            model.get_parameter(name).mul_(kept)
        torch.testing.assert_close(masked(x), model(x))


def test_network_that_was_given_is_not_changed() -> None:
    model = _net()
    names = list(model.state_dict())
    textbook.with_masks(model, _mask(model))
    assert list(model.state_dict()) == names


def test_pruned_weights_get_no_gradient_and_the_loss_falls() -> None:
    model = textbook.with_masks(nn.Sequential(nn.Linear(4, 2)), {"0.weight": torch.eye(2, 4) > 0})
    x, y = torch.eye(4)[:2], torch.tensor([0, 1])
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = textbook.steps(model, [(x, y)], optimizer)
    first, *_, last = (next(losses) for _ in range(20))
    assert last < first
    gradient = model[0].layer.weight.grad
    assert gradient is not None
    assert bool((gradient[torch.eye(2, 4) == 0] == 0).all())


def test_steps_are_computed_in_bfloat16_only_where_asked() -> None:
    found = []
    model = nn.Linear(4, 2)
    model.register_forward_hook(lambda module, x, out: found.append(out.dtype))
    optimizer, batches = (
        torch.optim.SGD(model.parameters(), 0.1),
        [(torch.eye(4), torch.zeros(4).long())],
    )
    for bf16 in (False, True):
        next(textbook.steps(model, batches, optimizer, bf16))
    assert found == [torch.float32, torch.bfloat16]
    assert not torch.is_autocast_enabled("cpu")


def test_evaluation_covers_all_examples() -> None:
    model = nn.Linear(2, 2)
    x, y = torch.eye(2), torch.tensor([0, 1])
    loss, accuracy = textbook.evaluate(model, [(x, y), (x[:1], y[:1])])
    logits = model(torch.cat([x, x[:1]])).detach()
    labels = torch.cat([y, y[:1]])
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_made_up_images_stand_in_where_there_are_none(monkeypatch, tmp_path) -> None:
    from lth_core.spec import DataSpec

    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    assert images.source(images.CIFAR10) == "made-up images like CIFAR-10's"
    assert images.source(images.MNIST) == "made-up images like MNIST's"
    found = images.cifar10(DataSpec(name=images.CIFAR10))
    assert found.train.x.shape == (5000, 3, 32, 32)
    assert set(found.test.y.tolist()) == set(range(10))
