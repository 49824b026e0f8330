"""The step of an optimizer without what torch's own step does around its kernel."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from lth_core import TrainSpec
from lth_core.seeds import generator
from lth_core.train.checkpoint import optimizer_tensors
from lth_core.train.optimizer import make_optimizer, set_rate, stepper

SPECS = {
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam", "weight_decay": 0.1},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
}


def trained(spec: TrainSpec, skipped: int, *, plainly: bool) -> dict[str, torch.Tensor]:
    """Parameters and state after six steps; the second parameter has no gradient in some."""
    stream = generator(0, "test")
    parameters = [nn.Parameter(torch.randn(5, 3, generator=stream)) for _ in range(2)]
    optimizer = make_optimizer(parameters, spec)
    optimizer_step, step_and_clear = inspect.unwrap(type(optimizer).step), stepper(optimizer)
    for step in range(6):
        set_rate(optimizer, 0.1 / (step + 1))
        for parameter in parameters[: 1 if step in (skipped, skipped + 2) else 2]:
            parameter.grad = torch.randn(5, 3, generator=stream)
        with torch.no_grad():
            if plainly and step != 4:
                optimizer_step(optimizer)
            step_and_clear(not plainly and step != 4)
        assert all(p.grad is None for p in parameters)
    numbered = {str(number): p.detach() for number, p in enumerate(parameters)}
    return numbered | optimizer_tensors(optimizer)


@pytest.mark.parametrize("skipped", [9, 0, 2])
@pytest.mark.parametrize("fields", SPECS.values(), ids=SPECS)
def test_steps_are_those_of_torch_bit_for_bit(fields: dict[str, Any], skipped: int) -> None:
    spec = TrainSpec(**fields)
    expected = trained(spec, skipped, plainly=True)
    got = trained(spec, skipped, plainly=False)
    assert got.keys() == expected.keys()
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


@pytest.mark.parametrize("fields", SPECS.values(), ids=SPECS)
def test_parameter_whose_first_gradient_comes_later_is_trained_from_there(
    fields: dict[str, Any],
) -> None:
    """As by an optimizer of its own; torch's fused SGD with momentum fails."""
    stream = generator(0, "test")
    late, alone = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    early = nn.Parameter(torch.ones(3))
    spec = TrainSpec(**fields)
    together = stepper(make_optimizer([early, late], spec))
    own = stepper(make_optimizer([alone], spec))
    for step in range(4):
        early.grad = torch.randn(3, generator=stream)
        if step > 1:
            late.grad = torch.randn(3, generator=stream)
            alone.grad = late.grad.clone()
        with torch.no_grad():
            together(True)
            own(step > 1)
    assert torch.equal(late, alone)
