"""Prunable layers: positions and FLOPs, against torch's own count."""

from math import prod

import pytest
import torch
from torch import nn

from lth_core import models
from lth_core.models.positions import shapes_and_positions
from lth_core.spec import ModelSpec


def counted(model: nn.Module, shape: tuple[int, ...]) -> int:
    """torch's own count, 2 a multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (ModelSpec(), (1, 8, 8)),
        (ModelSpec(name="conv-2", width=0.25), (3, 12, 10)),
        (ModelSpec(name="resnet-20"), (3, 16, 16)),
    ],
)
def test_dense_flops_are_those_torch_counts(spec: ModelSpec, shape: tuple[int, ...]) -> None:
    model = models.build(spec, shape, 10, torch.Generator())
    layers = shapes_and_positions(model, shape)
    flops = sum(2 * prod(weight) * positions for weight, positions in layers.values())
    assert flops == counted(model, shape)


def test_positions_are_the_outputs_places() -> None:
    model = models.build(ModelSpec(name="resnet-20"), (3, 16, 16), 10, torch.Generator())
    layers = shapes_and_positions(model, (3, 16, 16))
    assert layers["stem"] == ((16, 3, 3, 3), 256)
    assert layers["stages.2_1.conv1"] == ((32, 16, 3, 3), 64)
    assert layers["stages.3_1.shortcut.conv"] == ((64, 32, 1, 1), 16)
    assert layers["output"] == ((10, 64), 1)


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = models.build(
        ModelSpec(name="toys:batch_norm_net"), (1, 8, 8), 10, torch.Generator()
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shapes_and_positions(model, (1, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    counting = models.build(
        ModelSpec(name="odd_nets:counter_of_its_own"), (1, 8, 8), 10, torch.Generator()
    )
    shapes_and_positions(counting, (1, 8, 8))
    assert counting.calls == 0
