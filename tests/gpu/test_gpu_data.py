"""Data on the device: order, draws, augmentation and normalization are those of the CPU."""

from dataclasses import replace

import pytest
import torch
from small import DIGITS, PIXELS, dense_job

from lth_core import Trainer, data, models
from lth_core.data.augment import augment
from lth_core.models.layers import state_of
from lth_core.seeds import generator
from lth_core.spec import Augment, TicketSpec
from lth_core.train.batches import Order
from lth_core.train.loop import evaluate
from lth_core.train.precision import arithmetic

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["none", "flip", "crop", "crop_flip"])
def test_batches_are_those_of_the_cpu_to_the_bit(device: str, kind: Augment) -> None:
    on_cpu, on_device = (data.load(PIXELS.data, torch.device(name)) for name in ("cpu", device))
    order = Order(examples=len(on_cpu.train), batch_size=48, seed=3, run="1", augment=kind)
    expected = order.batches(2, 9, CPU)
    for step, index, draw in order.batches(2, 9, torch.device(device)):
        other_step, other_index, other_draw = next(expected)
        assert step == other_step
        x = augment(on_device.train.x[index], draw)
        assert x.dtype == torch.uint8
        assert torch.equal(x.cpu(), augment(on_cpu.train.x[other_index], other_draw))
        assert torch.equal(on_device.train.y[index].cpu(), on_cpu.train.y[other_index])
    assert next(expected, None) is None


@pytest.mark.parametrize("normalize", ["dataset", "per_image"])
def test_normalized_examples_are_close_to_those_of_the_cpu(device: str, normalize: str) -> None:
    spec = replace(PIXELS.data, normalize=normalize)  # type: ignore[arg-type]
    on_cpu, on_device = (data.load(spec, torch.device(name)) for name in ("cpu", device))
    expected = on_cpu.normalize(on_cpu.train.x)
    assert torch.allclose(on_device.normalize(on_device.train.x).cpu(), expected, atol=1e-5)


def test_examples_of_each_class_are_those_of_the_cpu(device: str) -> None:
    chosen = [
        data.load(DIGITS.data, torch.device(name)).train.of_each_class(3, generator(0, "x"))
        for name in ("cpu", device)
    ]
    assert torch.equal(chosen[0].x, chosen[1].x.cpu())
    assert torch.equal(chosen[0].y, chosen[1].y.cpu())


@pytest.mark.parametrize("spec", [DIGITS, PIXELS], ids=["digits", "pixels"])
def test_evaluation_is_that_of_the_cpu(device: str, spec: TicketSpec) -> None:
    figures = []
    for name in ("cpu", device):
        trainer, job = Trainer(device=name), dense_job(spec)
        dataset = trainer.data(job)
        model = trainer.network(job, trainer.start(job))
        with arithmetic("fp32", torch.device(name)):
            figures.append(evaluate(model, dataset, dataset.train))
    (loss, accuracy), (other_loss, other_accuracy) = figures
    assert other_loss == pytest.approx(loss, rel=1e-3)
    assert other_accuracy == pytest.approx(accuracy, abs=2 / 160)


def test_network_is_on_the_device_with_the_weights_of_the_cpu(device: str) -> None:
    trainer, job = Trainer(device=device), dense_job(PIXELS)
    start = trainer.start(job)
    model = trainer.network(job, start)
    state = state_of(model)
    assert {value.device.type for value in state.values()} == {torch.device(device).type}
    assert all(torch.equal(value.cpu(), start[name]) for name, value in state.items())
    assert models.template(job.model, (3, 16, 16), 4) is not model
