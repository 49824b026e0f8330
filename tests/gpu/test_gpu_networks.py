"""Networks in training on the device: close to the CPU, and the same twice."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
from small import DIGITS, PIXELS, curves, dense_job

from lth_core import ModelSpec, TicketSpec, Trainer
from lth_core.masks import State

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (20,), "dropout": 0.2},
    "mlp-constant": {"widths": (20,)},
    "lenet-300-100": {"width": 0.1},
    "lenet-5": {"width": 0.2},
    "conv-2": {"width": 0.1, "dropout": 0.2},
    "conv-6": {"width": 0.1},
    "vgg-11": {"width": 0.05},
    "resnet-8": {"width": 0.25},
    "resnet-18": {},
    "mobilenet-v2": {"width": 0.25},
    "vit-tiny": {"width": 0.25},
    "lstm": {"width": 0.25},
}
QUICK = ("mlp", "mlp-constant", "lenet-300-100", "lenet-5", "conv-2", "resnet-8", "lstm")
OF_TORCHVISION = ("resnet-18", "mobilenet-v2")

DETERMINISTIC = ("mlp", "conv-2", "vgg-11", "resnet-8")
"""Networks whose layers have deterministic kernels on a GPU."""


def spec_of(name: str) -> TicketSpec:
    if name in OF_TORCHVISION and not find_spec("torchvision"):
        pytest.skip("torchvision is not installed")
    return replace(PIXELS, model=ModelSpec(name=name, **NETWORKS[name]))


def trained(spec: TicketSpec, device: str) -> State:
    trainer, job = Trainer(device=device), dense_job(spec)
    trainer([job])
    return trainer.final(job)[0]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in NETWORKS
])  # fmt: skip
def test_losses_are_close_to_those_of_the_cpu(device: str, name: str) -> None:
    spec = spec_of(name)
    steps = 1 if name in OF_TORCHVISION else 3  # they are the slowest
    spec = replace(spec, train=replace(spec.train, steps=steps, evaluate_every=1))
    cpu, other = (curves(dense_job(spec), Trainer(device=each)) for each in ("cpu", device))
    assert other.train_loss[0] == pytest.approx(cpu.train_loss[0], rel=1e-3)
    assert other.train_loss == pytest.approx(cpu.train_loss, rel=0.1)
    assert other.validation_loss[0] == pytest.approx(cpu.validation_loss[0], rel=0.1)
    # The evaluated weights are those that are trained.
    of_cpu, of_other = (run.validation_loss[-1] - run.validation_loss[0] for run in (cpu, other))
    assert of_other == pytest.approx(of_cpu, rel=0.25, abs=5e-3)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_second_training_is_equal_to_the_bit(device: str, name: str) -> None:
    first, second = (trained(spec_of(name), device) for _ in range(2))
    assert all(value.equal(second[key]) for key, value in first.items())


@pytest.mark.long
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("name", ["mlp", "resnet-8", "vit-tiny", "lstm"])
def test_losses_in_less_precision_are_near_those_of_fp32(
    device: str, name: str, precision: Any
) -> None:
    spec = spec_of(name)
    losses = [
        curves(dense_job(replace(spec, train=replace(spec.train, precision=each))),
               Trainer(device=device)).train_loss
        for each in ("fp32", precision)
    ]  # fmt: skip
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adam", marks=pytest.mark.long)])
@pytest.mark.long
def test_mlp_learns_as_on_the_cpu(device: str, optimizer: Any) -> None:
    train = replace(DIGITS.train, optimizer=optimizer, steps=120, evaluate_every=60,
                    lr=0.3 if optimizer == "sgd" else 0.01)  # fmt: skip
    spec = replace(DIGITS, train=train)
    cpu, other = (curves(dense_job(spec), Trainer(device=each)) for each in ("cpu", device))
    assert other.test_accuracy[-1] > 0.85
    assert other.test_accuracy[-1] == pytest.approx(cpu.test_accuracy[-1], abs=0.04)
    assert other.train_loss == pytest.approx(cpu.train_loss, rel=0.1)
