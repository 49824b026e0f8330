"""Measurement of a training's speed in a moment, from which a plan estimates its duration."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from lth_core.data import Split
from lth_core.spec.fields import steps_in
from lth_core.train.evaluate import GPU_BATCH, evaluate
from lth_core.train.loop import Run, Task
from lth_core.train.pack.forward import ways_of
from lth_core.train.pack.pack import step_of
from lth_core.train.precision import arithmetic, flushed_denormals, threads_for

WARM_UP, MOST_STEPS = 5, 200
"""Numbers of steps that are not timed, of which a GPU captures the last but one, and that are timed
at most."""
EVALUATED = 500
"""Number of examples that are evaluated."""


def step_seconds(task: Task, seconds: float) -> float:
    """Seconds per step of a task, with its share of evaluations; its weights are trained on.

    Args:
        seconds: time to spend on steps, unless one takes longer.
    """
    data, spec, device = task.data, task.spec, task.data.train.x.device
    timed, begun = 0, time.perf_counter()
    clock = _clock(device)
    with (
        threads_for(task.model, data.shape, spec.batch_size),
        arithmetic(spec.precision, device),
        flushed_denormals(),
    ):
        train, batches = step_of([Run(task)], ways_of(task.model, device)[0])
        started = clock()
        for number, batch in enumerate(batches):
            train(*batch)
            on_gpu = device.type != "cpu"
            if number < WARM_UP and (on_gpu or time.perf_counter() - begun < seconds / 2):
                _wait(device)
                started = clock()
                if on_gpu:  # its first steps load libraries and capture graphs, in seconds
                    begun = time.perf_counter()
                continue
            timed += 1
            if timed == MOST_STEPS or time.perf_counter() - begun > seconds:
                break
        _wait(device)
        step = (clock() - started) / max(1, timed)
        return step + _evaluation_seconds(task, clock) / steps_in(spec.evaluate_every)


def _evaluation_seconds(task: Task, clock: Callable[[], float]) -> float:
    """Seconds of an evaluation, from one of some test examples."""
    data, on_gpu = task.data, task.data.train.x.device.type != "cpu"
    count = GPU_BATCH if on_gpu else EVALUATED
    examples = Split(data.test.x[:count], data.test.y[:count])
    if on_gpu:  # the first one loads libraries
        evaluate(task.model, data, examples)
    started = clock()
    evaluate(task.model, data, examples)
    seconds = clock() - started
    test = len(data.test) if task.spec.evaluate_test == "grid" else 0
    return seconds * (len(data.validation) + test) / max(1, len(examples))


def _clock(device: torch.device) -> Callable[[], float]:
    """Clock of seconds; on one thread of a CPU, without the time of other threads and programs."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
