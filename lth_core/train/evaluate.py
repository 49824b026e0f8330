"""Evaluation of a network on validation and test examples during training."""

from __future__ import annotations

from math import inf, isfinite

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lth_core.data import Dataset, Split
from lth_core.errors import DivergedError
from lth_core.train.precision import precise
from lth_core.train.training import Curves

BATCH, GPU_BATCH = 250, 1000
"""Examples in a forward pass, on a CPU and elsewhere. The activations of 250 stay in a CPU's cache:
ResNet-8 takes half of the time that it takes with 1,000, LeNet-300-100 as long (docs/scale.md)."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
STATISTICS_BATCH = 500
"""Least number of training examples in each batch for batch norm's statistics."""


def record_evaluation(
    curves: Curves,
    step: int,
    train_loss: float,
    model: nn.Module,
    data: Dataset,
    *,
    test_at_best: bool = False,
    since: int = 0,
) -> None:
    """Add one point to the curves: mean training loss since the last point, validation and test.

    Without validation examples the curves have no validation.

    Args:
        test_at_best: evaluate the test examples only where the validation loss is the lowest so
            far, as at every point that may become the early stop; elsewhere their accuracy is None.
        since: least step of an early stop; from it on, lower losses before it do not count.

    Raises:
        DivergedError: a loss is not finite.
    """
    validation = evaluate(model, data, data.validation) if len(data.validation) else None
    losses = {"training": train_loss}
    if validation:
        losses["validation"] = validation[0]
    _check_finite(losses, step)
    counted = zip(curves.step, curves.validation_loss, strict=True) if validation else ()
    earlier = [loss for at, loss in counted if at >= since or step < since]
    best = not validation or validation[0] < min(earlier, default=inf)
    test = evaluate(model, data, data.test) if best or not test_at_best else None
    if test:  # logits that are no numbers would count as class 0
        _check_finite({"test": test[0]}, step)
    curves.step.append(step)
    curves.train_loss.append(train_loss)
    curves.test_accuracy.append(test[1] if test else None)
    if validation:
        curves.validation_loss.append(validation[0])
        curves.validation_accuracy.append(validation[1])


def _check_finite(losses: dict[str, float], step: int) -> None:
    if not all(map(isfinite, losses.values())):
        text = ", ".join(f"{name} {loss:g}" for name, loss in losses.items())
        raise DivergedError(
            f"the loss is not finite at step {step} ({text}); a smaller train.lr may help"
        )


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset, split: Split) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in [0, 1] over all of a split, in evaluation mode.

    Not in torch.inference_mode, whose tensors autograd refuses later: a user's network may keep one
    that it computes in its first forward pass. It would gain at most 2% (docs/scale.md).
    """
    model.eval()
    device = split.y.device
    batch = BATCH if device.type == "cpu" else GPU_BATCH
    loss = torch.zeros((), device=device, dtype=precise(device))
    correct = torch.zeros((), device=device, dtype=torch.int64)
    for x, y in zip(split.x.split(batch), split.y.split(batch), strict=True):
        logits = model(data.normalize(x)).float()
        loss += cross_entropy(logits, y, reduction="none").sum(dtype=precise(device))
        correct += (logits.argmax(1) == y).sum()
    model.train()
    return loss.item() / len(split), correct.item() / len(split)


@torch.no_grad()
def estimate_statistics(model: nn.Module, data: Dataset) -> None:
    """Set batch norm's running mean and variance to their averages over the training examples.

    All other layers are in evaluation mode. A model without batch norm is not changed.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, NORMS)]
    if not norms:
        return
    momenta, training = [layer.momentum for layer in norms], model.training
    model.eval()
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # in torch, None means a plain average over batches
        layer.train()
    # Parts of nearly equal size, because a part of a single example has no variance.
    for x in data.train.x.tensor_split(max(1, len(data.train) // STATISTICS_BATCH)):
        model(data.normalize(x))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    model.train(training)
