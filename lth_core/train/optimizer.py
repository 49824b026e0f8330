"""torch.optim's optimizers, by spec, without the wrappers that serve torch.compile.

Those wrappers import the compiler's tracer (sympy and 900 modules, 2 to 4 s in every worker) at the
first optimizer and the first step, for a compiler that we do not use, and cost time at each step.
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
    _leave_tracer_out()
    options: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay, "fused": True}
    if spec.optimizer == "adam":
        return torch.optim.Adam(parameters, **options)
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    return torch.optim.SGD(parameters, momentum=spec.momentum, nesterov=spec.nesterov, **options)


def stepper(optimizer: Optimizer) -> Callable[[bool], None]:
    """The optimizer's plain step, if it is to be taken, then gradients forgotten.

    To be called without gradients on.
    """
    step = inspect.unwrap(type(optimizer).step)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def run(take: bool) -> None:
        if take:
            step(optimizer)
        for parameter in parameters:
            parameter.grad = None

    return run


def _leave_tracer_out() -> None:
    """Tell the wrapper of ``add_param_group`` that it need not ask the tracer.

    It remembers what the tracer gave it in this attribute; where torch changes that, nothing is
    lost but the time.
    """
    plain = getattr(Optimizer.add_param_group, "__wrapped__", None)
    if plain is not None and "torch._dynamo" not in sys.modules:
        plain.__dynamo_disable = plain
