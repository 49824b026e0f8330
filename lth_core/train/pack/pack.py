"""Training of several runs together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor

from lth_core.errors import DivergedError
from lth_core.train.loop import Run
from lth_core.train.optimizer import stepper
from lth_core.train.pack.forward import Way
from lth_core.train.pack.stack import Stack
from lth_core.train.precision import arithmetic, flushed_denormals


class Pack:
    """Runs in training, together. Iterate to train: each step yields the number of steps done.

    All runs follow one schedule. A run that starts later, as from a rewind point, or that resumes
    from a checkpoint, joins at its own step; one that has ended, or whose loss is not finite,
    leaves. Between two such events the same runs are one `Stack`.

    Args:
        runs: as in `Stack`, but their steps may differ.
    """

    def __init__(self, runs: Sequence[Run], way: Way = Way.STACKED, compiled: bool = False) -> None:
        self.runs, self._way, self._compiled = runs, way, compiled
        self.errors: dict[int, DivergedError] = {}
        """Errors of the runs that diverged, by position."""

    def __iter__(self) -> Iterator[int]:
        if trains_plainly(self.runs):
            yield from self._alone(0)
            return
        spec, device = self.runs[0].task.spec, self.runs[0].task.data.train.x.device
        with arithmetic(spec.precision, device):
            for position, run in enumerate(self.runs):
                if run.done == run.task.last:  # without steps, or resumed after its last one
                    self._finish_early(position, run)
            while stack := self._next_stack():
                yield from self._train(*stack)

    def _alone(self, position: int) -> Iterator[int]:
        try:
            yield from self.runs[position]
        except DivergedError as error:
            self.errors[position] = error

    def _next_stack(self) -> tuple[list[int], int] | None:
        """Positions of the runs with the fewest steps done, and the step at which that changes."""
        left = {
            position: run
            for position, run in enumerate(self.runs)
            if position not in self.errors and run.done < run.task.last
        }
        if not left:
            return None
        first = min(run.done for run in left.values())
        members = [position for position, run in left.items() if run.done == first]
        later = [run.done for run in left.values() if run.done > first]
        return members, min([*later, *(left[position].task.last for position in members)])

    def _train(self, members: Sequence[int], last: int) -> Iterator[int]:
        runs, started = [self.runs[position] for position in members], time.perf_counter()
        stack = Stack(runs, self._way, self._compiled)
        for step, index, draw in stack.batches(runs[0].done, last):
            for run in runs:
                run.keep_point(step)
            with flushed_denormals():
                losses = stack.step(step, index, draw)
                self.errors |= {members[n]: error for n, error in stack.errors.items()}
                for position, loss in zip(members, losses.unbind(), strict=True):
                    if position not in self.errors:
                        self._end_step(position, loss)
            _charge(runs, started)
            yield step + 1
            started = time.perf_counter()
            if self.errors.keys() & set(members):
                break
        for position in members:
            run = self.runs[position]
            if run.done == run.task.last and position not in self.errors:
                run.finish()
        _charge(runs, started)

    def _finish_early(self, position: int, run: Run) -> None:
        started = time.perf_counter()
        try:
            if run.task.first == run.task.last:
                with flushed_denormals():
                    run.evaluate_start()
            run.finish()
        except DivergedError as error:
            self.errors[position] = error
        _charge([run], started)

    def _end_step(self, position: int, loss: Tensor) -> None:
        try:
            self.runs[position].end_step(loss)
        except DivergedError as error:
            self.errors[position] = error


def trains_plainly(runs: Sequence[Run]) -> bool:
    """Whether there is one run, and it gains nothing by a stack: it is on a CPU, or its network
    draws from global generators."""
    task = runs[0].task
    return len(runs) == 1 and (task.draws or not task.data.train.x.is_cuda)


def step_of(
    runs: Sequence[Run], way: Way
) -> tuple[Callable[[int, Tensor, Tensor], object], Iterator[tuple[int, Tensor, Tensor]]]:
    """The function that trains one step of runs which start together, and the steps' batches.

    It is what `Pack` calls, for measurements: nothing is evaluated or kept.
    """
    task = runs[0].task
    if trains_plainly(runs):
        train = partial(runs[0].train_step, take_step=stepper(runs[0].optimizer))
        return train, task.order.batches(task.first, task.last, task.data.train.x.device)
    stack = Stack(runs, way)
    return stack.step, stack.batches(task.first, task.last)


def _charge(runs: Sequence[Run], started: float) -> None:
    """Divide the time since ``started``, by `time.perf_counter`, among runs."""
    seconds = time.perf_counter() - started
    for run in runs:
        run.seconds += seconds / len(runs)
