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

Kernel = Callable[[list[Tensor]], None]
"""Takes an optimizer's step, given the gradients of all its parameters."""

MOMENTS = {
    "sgd": ("momentum_buffer",),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
}
"""Names of an optimizer's moments, in the order of its kernel's arguments; SGD has one only with
momentum."""


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
        if not isinstance(group["lr"], Tensor):
            group["lr"] = rate
        elif group.get("rate") != rate:  # to fill a tensor on a GPU is a launch
            group["lr"].fill_(rate)
            group["rate"] = rate


def stepper(optimizer: Optimizer) -> Callable[[bool], None]:
    """A function that takes the optimizer's step if its argument is true, and clears gradients.

    Call it under `torch.no_grad`. From the second step on, the tensors of the optimizer's state
    must stay the same ones.
    """
    step = inspect.unwrap(type(optimizer).step)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if optimizer.param_groups[0].get("momentum"):
        for parameter in parameters:  # torch fails where one has its first gradient after others
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
    kernel: Kernel | None = None

    def run(take: bool) -> None:
        nonlocal kernel
        if take:
            kernel = kernel or _kernel(optimizer, parameters)
            gradients = [p.grad for p in parameters if p.grad is not None]
            if kernel and len(gradients) == len(parameters):
                kernel(gradients)
            else:
                step(optimizer)
        for parameter in parameters:
            parameter.grad = None

    return run


def _kernel(optimizer: Optimizer, parameters: list[Tensor]) -> Kernel | None:
    """The kernel that an optimizer's `step` calls, with all arguments but the gradients.

    To collect them at each step takes longer than to step a small network. None before Adam's first
    step, which makes the state; and on a GPU, where a graph repeats the whole step.
    """
    group, states = optimizer.param_groups[0], [optimizer.state.get(p, {}) for p in parameters]
    momentum, decay = group.get("momentum", 0.0), group["weight_decay"]
    is_sgd = isinstance(optimizer, torch.optim.SGD)
    names = MOMENTS[type(optimizer).__name__.lower()] if momentum or not is_sgd else ()
    alike = len({(p.device, p.dtype) for p in parameters}) == 1 and not parameters[0].is_cuda
    if not alike or not all(name in state for state in states for name in names):
        return None
    moments = [[state[name] for state in states] for name in names]
    if is_sgd:
        return lambda gradients: torch._fused_sgd_(
            parameters, gradients, moments[0] if momentum else [], weight_decay=decay,
            lr=group["lr"], momentum=momentum, dampening=0.0, nesterov=group["nesterov"],
            maximize=False, is_first_step=False,
        )  # fmt: skip
    fused = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    (first, second), counts = moments, [state["step"] for state in states]
    beta1, beta2 = group["betas"]
    steps = torch.stack(counts)
    for count, part in zip(counts, steps, strict=True):
        count.data = part

    def adam(gradients: list[Tensor]) -> None:
        steps.add_(1)
        fused(
            parameters, gradients, first, second, [], counts, lr=group["lr"], beta1=beta1,
            beta2=beta2, weight_decay=decay, eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    return adam


def _skip_tracer() -> None:
    """Make the wrapper of ``add_param_group`` skip the tracer.

    The wrapper caches the tracer's function in this attribute. If torch renames the attribute, only
    time is lost.
    """
    plain = getattr(Optimizer.add_param_group, "__wrapped__", None)
    if plain is not None and "torch._dynamo" not in sys.modules:
        plain.__dynamo_disable = plain
