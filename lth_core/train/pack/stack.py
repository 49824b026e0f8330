"""A stack: the networks of several runs as one program, stepped together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lth_core.data.augment import augment
from lth_core.errors import DivergedError
from lth_core.spec.learning_rate import learning_rate
from lth_core.train.loop import Run, add_norm_penalty
from lth_core.train.masking.base import Fixed
from lth_core.train.masking.learned import learned_together, shared
from lth_core.train.optimizer import MOMENTS, make_optimizer, set_rate, stepper
from lth_core.train.pack.forward import Way, packed_forward
from lth_core.train.pack.graph import StepGraph, can_capture


class Stack:
    """Runs that have done the same number of steps, trained together.

    From its creation on, the parameters and buffers of the runs' networks are views into stacked
    tensors (P, ...), P runs. So an evaluation, a rewind point, a checkpoint or a change of one
    run's mask reads and writes that run's network, as if it were trained alone. Only the forward
    and backward pass, and where possible the optimizer's step, are computed for all at once.

    Args:
        runs: of networks with one structure, on data of one shape, with one batch size, optimizer
            and precision.
        compiled: whether `torch.compile` compiles the forward pass, and so the backward pass.
    """

    def __init__(self, runs: Sequence[Run], way: Way = Way.STACKED, compiled: bool = False) -> None:
        self.runs, self._tasks = runs, [run.task for run in runs]
        self.errors: dict[int, DivergedError] = {}
        """Errors of the runs that diverged in a step, by number in `runs`."""
        models = [task.model for task in self._tasks]
        for model in models:
            _keep_in_place(model)
        self._members = [list(model.parameters()) for model in models]
        self._parameters = shared([dict(model.named_parameters()) for model in models])
        self._buffers = shared([dict(model.named_buffers()) for model in models])
        compiled = compiled and way is not Way.EACH
        first, is_stacked = self._tasks[0], way is Way.STACKED
        self._chain = first.chain(self._parameters, compiled) if is_stacked else None
        forward = packed_forward(models[0], len(models), way)
        self._forward = torch.compile(forward) if compiled else forward
        self._dropout = self._tasks[0].dropout
        for task in self._tasks:
            if isinstance(task.masking, Fixed):
                task.masking.set_mask(task.masking.mask)  # of the weights where they are now
        self._fixed = all(type(task.masking) is Fixed for task in self._tasks)
        self._masks = self._stacked_masks() if self._fixed else []
        self._penalized = [run for run in runs if run.task.spec.norm_penalty]
        alike, maskings = _step_alike(runs), [task.masking for task in self._tasks]
        self._learned = learned_together(maskings, self._parameters) if alike else None
        if self._learned or (self._fixed and alike):
            trained = self._learned.scores if self._learned else self._parameters
            self._optimizers = [self._shared_optimizer(list(trained.values()))]
        else:
            self._optimizers = [run.optimizer for run in runs]
            _own_states(self._optimizers)
        self._steppers = [stepper(optimizer) for optimizer in self._optimizers]
        self._graph = StepGraph() if can_capture(self._tasks) else None

    def batches(self, first: int, last: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(step, indices (P, b) int64, augmentation draws (P, b, 3) int64) of steps
        first..last-1."""
        order, device = self._tasks[0].order, self._tasks[0].data.train.x.device
        step = first
        while step < last:
            epoch, position = divmod(step, order.steps_per_epoch)
            epochs = [task.order.epoch(epoch) for task in self._tasks]
            orders, drawn = zip(*epochs, strict=True)
            indices = torch.stack(orders).to(device)
            if order.augment == "none":  # all draws are equal
                draws = drawn[0][:1].to(device).expand(*indices.shape, -1)
            else:
                draws = torch.stack(drawn).to(device)
            batches = list(
                zip(
                    indices.split(order.batch_size, 1),
                    draws.split(order.batch_size, 1),
                    strict=True,
                )
            )
            for index, draw in batches[position : position + last - step]:
                yield step, index, draw
                step += 1

    def step(self, step: int, index: Tensor, draw: Tensor) -> Tensor:
        """Train one step of all runs; returns their losses, (P,)."""
        for optimizer, task in zip(self._optimizers, self._tasks, strict=False):
            set_rate(optimizer, learning_rate(task.spec, step))
        for layer in self._dropout:
            streams = [(task.order.seed, task.order.run) for task in self._tasks]
            layer.begin_stacked_step(streams, step)
        if self._graph:
            return self._graph(self._compute, index, draw)
        if self._fixed:
            return self._compute(index, draw)
        if self._learned:
            self._learned.before_forward(step)
            loss = self._backward(index, draw)
            self._learned.before_step()
            self._update()
            return loss
        for task in self._tasks:
            task.masking.before_forward(step)
        loss = self._backward(index, draw)
        self._update_each(step)
        return loss

    def _compute(self, index: Tensor, draw: Tensor) -> Tensor:
        """A step under fixed masks: the same computation at each step."""
        loss = self._backward(index, draw)
        self._update()
        return loss

    def _backward(self, index: Tensor, draw: Tensor) -> Tensor:
        """Forward and backward pass; returns the losses, (P,)."""
        task, count = self._tasks[0], len(self._tasks)
        flat = index.flatten()
        x = task.data.train.x.index_select(0, flat)
        if task.order.augment != "none":
            x = augment(x, draw.flatten(0, 1))
        x, y = task.data.normalize(x).unflatten(0, (count, -1)), self._labels(index)
        if self._chain:
            return self._chain.backward(x, y)
        logits = self._forward(self._parameters, self._buffers, x)
        losses = cross_entropy(logits.flatten(0, 1), y, reduction="none")
        loss = losses.view(count, -1).mean(1)
        loss.sum().backward()
        return loss.detach()

    def _labels(self, index: Tensor) -> Tensor:
        """Labels (P x b,) int64; those of runs may differ by label noise."""
        labels = [task.data.train.y for task in self._tasks]
        if all(y is labels[0] for y in labels):
            return labels[0].index_select(0, index.flatten())
        return torch.cat([y[own] for y, own in zip(labels, index, strict=True)])

    @torch.no_grad()
    def _update(self) -> None:
        """Step the shared optimizer, or those of the runs, and set pruned weights to 0."""
        # A shared optimizer reads the stacked gradients.
        shares = len(self._optimizers) < len(self.runs) and not self._penalized
        if not shares:
            self._give_gradients()
        for take_step in self._steppers:
            take_step(True)
        self._clear_gradients(members=not shares)
        for weight, mask in self._masks:
            weight.mul_(mask)

    @torch.no_grad()
    def _update_each(self, step: int) -> None:
        """Step the runs' own optimizers, and change each mask as its method does."""
        self._give_gradients()
        for number, (run, take_step) in enumerate(zip(self.runs, self._steppers, strict=True)):
            try:
                take_step(run.task.masking.before_step(step, run.optimizer))
                run.task.masking.after_step()
            except DivergedError as error:  # a change of the mask finds no finite scores
                self.errors[number] = error
        self._clear_gradients(members=True)

    def _give_gradients(self) -> None:
        """Give each run's parameters their part of the stacked gradients, and add its penalty."""
        for number, stacked in enumerate(self._parameters.values()):
            if stacked.grad is not None:
                for parameters, gradient in zip(self._members, stacked.grad, strict=True):
                    parameters[number].grad = gradient
        for run in self._penalized:
            add_norm_penalty(run.scales, run.task.spec.norm_penalty)

    def _clear_gradients(self, members: bool) -> None:
        """Clear the stacked gradients, and those of the runs' parameters if these have any."""
        for stacked in self._parameters.values():
            stacked.grad = None
        for parameters in self._members if members else ():
            for parameter in parameters:
                parameter.grad = None

    def _shared_optimizer(self, trained: Sequence[Tensor]) -> Optimizer:
        """An optimizer of stacked tensors; the runs' optimizers have views of its state.

        Args:
            trained: stacked parameters or scores, (P, ...), in the order of the runs' own.
        """
        spec = self._tasks[0].spec
        optimizer = make_optimizer(trained, spec)
        moments = MOMENTS[spec.optimizer] if spec.optimizer != "sgd" or spec.momentum else ()
        members = zip(*(task.masking.trained() for task in self._tasks), strict=True)
        for stacked, own in zip(trained, members, strict=True):
            states = [run.optimizer.state[p] for run, p in zip(self.runs, own, strict=True)]
            for name in moments:
                parts = [
                    torch.zeros_like(p) if state.get(name) is None else state[name]
                    for state, p in zip(states, own, strict=True)
                ]
                # In the layout of the weights, because fused kernels read both in memory's order.
                optimizer.state[stacked][name] = torch.empty_like(stacked).copy_(torch.stack(parts))
                for state, part in zip(states, optimizer.state[stacked][name], strict=True):
                    state[name] = part
            if spec.optimizer != "sgd":
                count = states[0].get("step", torch.zeros((), device=stacked.device)).clone()
                for state in (optimizer.state[stacked], *states):
                    state["step"] = count
        return optimizer

    def _stacked_masks(self) -> list[tuple[Tensor, Tensor]]:
        """Stacked weights that some run prunes, and their masks as floats, (P, out, in, ...)."""
        masks = [cast("Fixed", task.masking).all_masks for task in self._tasks]
        names = [n for n in masks[0] if not all(bool(own[n].all()) for own in masks)]
        weights = [self._parameters[name].detach() for name in names]
        return [
            (weight, torch.stack([own[name].to(weight) for own in masks]))
            for name, weight in zip(names, weights, strict=True)
        ]


def _keep_in_place(model: nn.Module) -> None:
    """Let the weights of recurrent layers stay where they are, in the stack.

    On a GPU torch would copy them into a block of their own before a forward pass, and the network
    would be evaluated and stored with that copy, which nothing trains.
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters = _leave  # type: ignore[method-assign]


def _leave() -> None:
    return


def _step_alike(runs: Sequence[Run]) -> bool:
    """Whether one optimizer can step all runs: they have one spec, and took as many steps.

    Adam's step depends on the number of steps that it has taken before.
    """
    specs, taken = {run.task.spec for run in runs}, {run.done - run.task.first for run in runs}
    return len(specs) == 1 and (len(taken) == 1 or runs[0].task.spec.optimizer == "sgd")


def _own_states(optimizers: Sequence[Optimizer]) -> None:
    """Give each optimizer step counts of its own, for those of an earlier stack shared one, and
    moments in the layout of their parameters, which fused kernels need."""
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if name == "step":
                    state[name] = value.clone()
                elif isinstance(value, Tensor) and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter).copy_(value)
