"""One plain training loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_core.checks import steps_in
from lth_core.data import Dataset, Split
from lth_core.data.augment import augment
from lth_core.errors import DivergedError
from lth_core.masks import Mask, State
from lth_core.spec import TrainSpec
from lth_core.train.masking import Masking
from lth_core.train.optimizer import make_optimizer, stepper
from lth_core.train.order import Order
from lth_core.train.precision import arithmetic
from lth_core.train.schedule import learning_rate
from lth_core.training import Curves

EVALUATION_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Task:
    """A job with everything it needs at hand.

    model: holds the start, pruned weights at 0; trained in place, on the data's device.
    masking: how its mask is kept.
    keep: steps after which the state is copied out.
    """

    model: nn.Module
    masking: Masking
    data: Dataset
    spec: TrainSpec
    order: Order
    first: int
    last: int
    keep: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """state, mask: weights and buffers at the end, on the CPU; points: states at the kept steps."""

    state: State
    mask: Mask
    points: dict[int, State]
    curves: Curves
    seconds: float


def run(task: Task) -> Outcome:
    """Train one task to its last step.

    A task of no steps is evaluated as it is.

    Raises:
        DivergedError: the loss is not finite at an evaluation.
    """
    started = time.perf_counter()
    model, spec, data = task.model, task.spec, task.data
    device = data.train.x.device
    masking = task.masking
    optimizer = make_optimizer(masking.trained(), spec)
    step_and_forget = stepper(optimizer)
    every, curves, points = steps_in(spec.evaluate_every), Curves(), {}
    losses: list[Tensor] = []
    with arithmetic(spec.precision, device):
        for step, index, draw in task.order.batches(task.first, task.last, device):
            if step in task.keep:
                points[step] = state_of(model)
            x = data.train.x[index]
            if task.order.augment != "none":
                x = augment(x, draw)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(spec, step)
            masking.before_forward(step)
            loss = cross_entropy(model(data.normalize(x)), data.train.y[index])
            loss.backward()
            with torch.no_grad():
                step_and_forget(masking.before_step(step, optimizer))
                masking.after_step()
            losses.append(loss.detach())
            done = step + 1
            if done % every == 0 or done == task.last:
                masking.settle()
                record_evaluation(curves, done, torch.stack(losses).mean().item(), model, data)
                losses.clear()
        if task.first == task.last:
            train_loss, _ = evaluate(model, data, data.train)
            record_evaluation(curves, task.last, train_loss, model, data)
    if task.last in task.keep:
        points[task.last] = state_of(model)
    seconds = time.perf_counter() - started
    return Outcome(state_of(model), masking.mask, points, curves, seconds)


def record_evaluation(
    curves: Curves, step: int, train_loss: float, model: nn.Module, data: Dataset
) -> None:
    """Add one point to the curves: mean training loss since the last, validation and test."""
    validation_loss, validation_accuracy = evaluate(model, data, data.validation)
    _, test_accuracy = evaluate(model, data, data.test)
    if not torch.isfinite(torch.tensor([train_loss, validation_loss])).all():
        raise DivergedError(
            f"the loss is not finite at step {step} (training {train_loss:g}, validation "
            f"{validation_loss:g}); a smaller train.lr may help"
        )
    curves.step.append(step)
    curves.train_loss.append(train_loss)
    curves.validation_loss.append(validation_loss)
    curves.validation_accuracy.append(validation_accuracy)
    curves.test_accuracy.append(test_accuracy)


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset, split: Split) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in [0, 1] over all of a split, in evaluation mode."""
    model.eval()
    loss = torch.zeros((), device=split.y.device, dtype=torch.float64)
    correct = torch.zeros((), device=split.y.device, dtype=torch.int64)
    for x, y in zip(split.x.split(EVALUATION_BATCH), split.y.split(EVALUATION_BATCH), strict=True):
        logits = model(data.normalize(x)).float()
        loss += cross_entropy(logits, y, reduction="sum")
        correct += (logits.argmax(1) == y).sum()
    model.train()
    return loss.item() / len(split), correct.item() / len(split)


def state_of(model: nn.Module) -> State:
    """A copy of all weights and buffers, on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }
