"""The training loop, which can be stopped after any step and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_core.data import Dataset
from lth_core.data.augment import augment
from lth_core.masks import Mask, State
from lth_core.models import layers
from lth_core.models.dropout import Dropout
from lth_core.seeds import derive, seeded_draws
from lth_core.spec import TrainSpec
from lth_core.spec.fields import steps_in
from lth_core.spec.learning_rate import learning_rate
from lth_core.train.batches import Order
from lth_core.train.checkpoint import (
    Checkpoint,
    cpu_copies,
    moment_fits,
    optimizer_tensors,
    restore_optimizer,
    shapes_and_types,
)
from lth_core.train.evaluate import evaluate, record_evaluation
from lth_core.train.layers.chain import LinearChain, is_linear_chain
from lth_core.train.masking.base import Masking
from lth_core.train.optimizer import make_optimizer, set_rate, stepper
from lth_core.train.precision import arithmetic, flushed_denormals, made_with
from lth_core.train.training import Curves


@dataclass(frozen=True, slots=True)
class Task:
    """A job, with its network and data.

    model: has the starting weights, pruned weights at 0; trained in place, on the data's device.
    masking: keeps or changes the mask.
    first, last: steps done at the start and at the end of the run.
    keep: steps after which the state is copied.
    draws: whether the model may draw from the global generators.
    early_stop_from: least number of steps of an early stop.
    """

    model: nn.Module
    masking: Masking
    data: Dataset
    spec: TrainSpec
    order: Order
    first: int
    last: int
    keep: Sequence[int] = ()
    draws: bool = True
    early_stop_from: int = 0

    @property
    def dropout(self) -> list[Dropout]:
        """Layers of the model that drop units."""
        return [m for m in self.model.modules() if isinstance(m, Dropout) and m.p]

    def chain(
        self, parameters: Mapping[str, Tensor] | None = None, compiled: bool = False
    ) -> LinearChain | None:
        """The model as a `LinearChain`, if it is one; a user's may have hooks.

        Args:
            parameters, compiled: as in `LinearChain`.
        """
        if self.draws or not is_linear_chain(self.model):
            return None
        return LinearChain(self.model, self.spec.precision, parameters, compiled)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Final state and mask, on the CPU, in the model's shapes.

    points: states at the kept steps.
    made_with: as `Training.made_with`.
    """

    state: State
    mask: Mask
    points: dict[int, State]
    curves: Curves
    seconds: float
    made_with: dict[str, str]


class Run:
    """A task in training. Iterate to train: each step yields the number of steps done.

    Attributes:
        done: steps done, counted from the start of the dense run's schedule.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.done, self.curves = task, task.first, Curves()
        self.optimizer = make_optimizer(task.masking.trained(), task.spec)
        self.points: dict[int, State] = {}
        """States at the kept steps so far."""
        self._dropout = task.dropout
        self._losses: list[Tensor] = []
        self.scales = layers.norm_scales(task.model) if task.spec.norm_penalty else []
        self.seconds = 0.0
        """Training time so far, including the time before an interruption."""

    @cached_property
    def _chain(self) -> LinearChain | None:
        return self.task.chain()

    def __iter__(self) -> Iterator[int]:
        """Train to the last step; a task of no steps is only evaluated.

        Raises:
            DivergedError: the loss is not finite at an evaluation.
        """
        task, device = self.task, self.task.data.train.x.device
        step_and_clear, started = stepper(self.optimizer), time.perf_counter()
        with arithmetic(task.spec.precision, device):
            for step, index, draw in task.order.batches(self.done, task.last, device):
                self.keep_point(step)
                with self._seeded(step), flushed_denormals():
                    self.end_step(self.train_step(step, index, draw, step_and_clear))
                self.seconds += time.perf_counter() - started
                yield self.done
                started = time.perf_counter()
            if task.first == task.last:
                with self._seeded(task.last), flushed_denormals():
                    self.evaluate_start()
        self.finish()
        self.seconds += time.perf_counter() - started

    def keep_point(self, step: int) -> None:
        """Copy the state after ``step`` steps if it is to be kept."""
        if step in self.task.keep:
            self.points[step] = state_of(self.task.model)

    def end_step(self, loss: Tensor) -> None:
        """Record the loss of a step, (), and evaluate where the grid has a point."""
        self._losses.append(loss)
        self.done += 1
        if self.done % steps_in(self.task.spec.evaluate_every) == 0 or self.done == self.task.last:
            self.task.masking.apply_mask()
            self._evaluate(torch.stack(self._losses).mean().item())
            self._losses.clear()

    def evaluate_start(self) -> None:
        """Evaluate a task of no steps."""
        train_loss, _ = evaluate(self.task.model, self.task.data, self.task.data.train)
        self._evaluate(train_loss)

    def finish(self) -> None:
        """Give the network its final state, after the last step."""
        self.task.masking.finish()
        self.keep_point(self.task.last)

    def _seeded(self, step: int) -> AbstractContextManager[None]:
        """Seed all that the model draws in a step from the replicate, the run and the step."""
        seed, run = self.task.order.seed, self.task.order.run
        for layer in self._dropout:
            layer.begin_step(seed, run, step)
        return seeded_draws(derive(seed, "draws", run, step)) if self.task.draws else nullcontext()

    def train_step(
        self, step: int, index: Tensor, draw: Tensor, take_step: Callable[[bool], None]
    ) -> Tensor:
        """Train one step; returns its loss, ()."""
        spec, data, masking = self.task.spec, self.task.data, self.task.masking
        # `x[index]` copies bytes one by one, and takes five times as long.
        x, y = (tensor.index_select(0, index) for tensor in (data.train.x, data.train.y))
        if self.task.order.augment != "none":
            x = augment(x, draw)
        set_rate(self.optimizer, learning_rate(spec, step))
        masking.before_forward(step)
        loss = self._backward(data.normalize(x), y)
        if spec.norm_penalty:
            add_norm_penalty(self.scales, spec.norm_penalty)
        with torch.no_grad():
            take_step(masking.before_step(step, self.optimizer))
            masking.after_step()
        return loss

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Set the gradients of the mean loss of normalized examples and labels; returns it, ()."""
        if self._chain:
            return self._chain.backward(x, y)
        loss = cross_entropy(self.task.model(x), y)
        loss.backward()
        return loss.detach()

    def _evaluate(self, train_loss: float) -> None:
        """Add a point to the curves, at the number of steps done."""
        task, curves = self.task, self.curves
        test_at_best = task.spec.evaluate_test == "best" and self.done < task.last
        record_evaluation(
            curves, self.done, train_loss, task.model, task.data,
            test_at_best=test_at_best, since=task.early_stop_from,
        )  # fmt: skip
        measured = bool(curves.validation_accuracy)
        task.masking.after_evaluation(curves.validation_accuracy[-1] if measured else None)

    def checkpoint(self) -> Checkpoint:
        """The state of the run between two steps."""
        parts = {
            "model": layers.state_of(self.task.model),
            "optimizer": optimizer_tensors(self.optimizer),
            "masking": self.task.masking.tensors(),
        }
        tensors = {f"{part}/{k}": v for part, named in parts.items() for k, v in named.items()}
        tensors["losses"] = torch.stack(self._losses) if self._losses else torch.zeros(0)
        curves = Curves(**asdict(self.curves))
        return Checkpoint(
            step=self.done, tensors=cpu_copies(tensors), curves=curves, seconds=self.seconds
        )

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint's step, names, shapes and types fit this task."""
        own = self.checkpoint()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return (
            self.task.first <= checkpoint.step <= self.task.last
            and all(
                shapes_and_types(checkpoint.part(name)) == shapes_and_types(own.part(name))
                for name in ("model", "masking")
            )
            and all(moment_fits(n, t, parameters) for n, t in checkpoint.part("optimizer").items())
            and "losses" in checkpoint.tensors
            and checkpoint.tensors["losses"].dim() == 1
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume an interrupted run of the same task; the result is equal bit for bit.

        Rewind points before the checkpoint are not in it.
        """
        task, device = self.task, self.task.data.train.x.device
        layers.load_state(task.model, checkpoint.part("model"))
        restore_optimizer(self.optimizer, checkpoint.part("optimizer"))
        task.masking.restore(checkpoint.part("masking"))
        self._losses = list(checkpoint.tensors["losses"].to(device).unbind())
        self.curves, self.done = checkpoint.curves, checkpoint.step
        self.seconds = checkpoint.seconds

    def outcome(self) -> Outcome:
        """The outcome of a finished run."""
        return Outcome(
            state_of(self.task.model), self.task.masking.mask, self.points, self.curves,
            self.seconds, made_with(self.task.data.train.x.device, self.task.model),
        )  # fmt: skip


def add_norm_penalty(scales: Sequence[nn.Parameter], penalty: float) -> None:
    """Add the subgradient of penalty x the scales' L1 norm to their gradients, in place; 0 at 0."""
    for scale in scales:
        if scale.grad is not None:
            scale.grad.add_(scale.detach().sign(), alpha=penalty)


def run(task: Task) -> Outcome:
    """Train one task to its last step.

    Raises:
        DivergedError: the loss is not finite at an evaluation.
    """
    running = Run(task)
    for _ in running:
        pass
    return running.outcome()


def state_of(model: nn.Module) -> State:
    """Copies of all weights and buffers, on the CPU, in the model's shapes."""
    return cpu_copies(layers.state_of(model))
