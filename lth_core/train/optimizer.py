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
from torch import Tensor
from torch.optim.optimizer import Optimizer

from lth_core.spec import TrainSpec


def make_optimizer(parameters: Iterable[Tensor], spec: TrainSpec) -> Optimizer:
    """SGD, Adam or AdamW over the parameters, in one fused kernel a step.

    On a GPU the learning rate is a tensor, so that a CUDA graph of the step can read it.
    """
    _skip_tracer()
    parameters = list(parameters)
    options: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay, "fused": True}
    if on_gpu := bool(parameters) and parameters[0].is_cuda:
        options["lr"] = torch.tensor(spec.lr, device=parameters[0].device)
    if spec.optimizer == "adam":
        return torch.optim.Adam(parameters, **options, capturable=on_gpu)
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options, capturable=on_gpu)
    return torch.optim.SGD(parameters, momentum=spec.momentum, nesterov=spec.nesterov, **options)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of an optimizer's next steps."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


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
