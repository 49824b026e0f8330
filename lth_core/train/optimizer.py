"""The optimizers of torch.optim, by spec, without their wrappers for torch.compile.

The wrappers import the compiler's tracer (sympy and 900 modules, 2 to 4 s in every worker) at the
first optimizer and the first step, and cost time at each step. The compiler is not used here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from lth_core.spec import TrainSpec


def make_optimizer(parameters: Iterable[nn.Parameter], spec: TrainSpec) -> Optimizer:
    """SGD, Adam or AdamW over the parameters, in one fused kernel a step."""
    _skip_tracer()
    options: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay, "fused": True}
    if spec.optimizer == "adam":
        return torch.optim.Adam(parameters, **options)
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    return torch.optim.SGD(parameters, momentum=spec.momentum, nesterov=spec.nesterov, **options)


def stepper(optimizer: Optimizer) -> Callable[[bool], None]:
    """A function that takes the optimizer's step if its argument is true, and clears gradients.

    Call it under `torch.no_grad`.
    """
    step = inspect.unwrap(type(optimizer).step)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def run(take: bool) -> None:
        if take:
            step(optimizer)
        for parameter in parameters:
            parameter.grad = None

    return run


def _skip_tracer() -> None:
    """Make the wrapper of ``add_param_group`` skip the tracer.

    The wrapper caches the tracer's function in this attribute. If torch renames the attribute, only
    time is lost.
    """
    plain = getattr(Optimizer.add_param_group, "__wrapped__", None)
    if plain is not None and "torch._dynamo" not in sys.modules:
        plain.__dynamo_disable = plain
