"""Denormal numbers are computed as 0 while a network trains, and only then."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from threading import Thread

import pytest
import torch
from test_loop import make
from torch import Tensor
from torch.nn import Module

import lth_core.train.loop as loop
from lth_core import TrainSpec
from lth_core.errors import DivergedError
from lth_core.train.loop import Run
from lth_core.train.precision import flushed_denormals, made_with

FADING = TrainSpec(optimizer="sgd", lr=1.5, momentum=0.01)
"""Units die; the momentum of their weights falls by a factor of 100 a step."""
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this CPU cannot flush denormals"
)


def denormals(value: Tensor) -> int:
    """Their number, by bits: a thread that flushes sees none."""
    bits = value.view(torch.int32)
    return int((((bits & 0x7F800000) == 0) & ((bits & 0x7FFFFFFF) != 0)).sum())


def flushes() -> bool:
    """Whether this thread computes 1e-40 x 1 as 0."""
    tiny = torch.ones(1, dtype=torch.int32).view(torch.float32)
    return int((tiny * 1).view(torch.int32)) == 0


def in_main(function: Callable[[], object]) -> object:
    return function()


def in_thread(function: Callable[[], object]) -> object:
    results = list[object]()
    thread = Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def denormals_of_training() -> int:
    """Denormals in the optimizer's state after each of 40 steps, summed over the steps."""
    running, count = Run(make(FADING, last=40)), 0
    for _ in running:
        state = running.optimizer.state.values()
        count += sum(denormals(v) for moments in state for v in moments.values())
    return count


@pytest.fixture
def not_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "flushed_denormals", nullcontext)


@pytest.mark.parametrize("place", [in_main, in_thread])
def test_optimizer_state_has_no_denormals(place: Callable[..., object]) -> None:
    assert place(denormals_of_training) == 0


@pytest.mark.usefixtures("not_flushing")
@pytest.mark.parametrize("place", [in_main, in_thread])
def test_optimizer_state_would_have_denormals(place: Callable[..., int]) -> None:
    assert place(denormals_of_training) > 100


def test_denormals_are_flushed_in_a_step_and_not_between_steps() -> None:
    seen = list[bool]()
    task = make(FADING, last=3)
    task.model.register_forward_hook(lambda *_: seen.append(flushes()))
    for _ in Run(task):
        assert not flushes()
    assert len(seen) > 3
    assert all(seen)
    assert not flushes()


def test_evaluation_of_a_task_without_steps_is_flushed_too() -> None:
    seen = list[bool]()
    task = replace(make(FADING), last=0)
    task.model.register_forward_hook(lambda *_: seen.append(flushes()))
    assert not list(Run(task))
    assert seen
    assert all(seen)


def abandoned() -> None:
    steps: Iterator[int] = iter(Run(make(FADING)))
    next(steps)
    held.append(steps)


def failed() -> None:
    task = make(FADING)
    torch.nn.init.constant_(task.model.get_parameter("fc1.weight"), float("nan"))
    with pytest.raises(DivergedError):
        list(Run(task))


held = list[object]()
"""Iterators that are not closed: the setting must not wait for that."""


@pytest.mark.parametrize("place", [in_main, in_thread])
@pytest.mark.parametrize("end", [abandoned, failed])
@pytest.mark.parametrize("before", [False, True])
def test_setting_is_given_back(
    place: Callable[..., object], end: Callable[[], None], before: bool
) -> None:
    def seen() -> bool:
        torch.set_flush_denormal(before)
        try:
            end()
            return flushes()
        finally:
            torch.set_flush_denormal(False)

    assert place(seen) is before
    assert not flushes()


def test_training_says_that_denormals_were_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made_with(CPU, Module())["denormals"] == "flushed"
    assert not flushes()
    assert "denormals" not in made_with(torch.device("meta"), Module())
    # A CPU that cannot flush: the setting has no effect.
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: False)
    assert "denormals" not in made_with(CPU, Module())


TWO_THREADS = """
import torch
from lth_core.train.precision import all_threads_flush, flushed_denormals, made_with

torch.set_num_threads(2)
{first}
all_threads_flush()  # starts torch's second thread
torch.set_flush_denormal(False)
print(made_with(torch.device("cpu"), torch.nn.Module()).get("denormals"))
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "expected"), [("torch.set_flush_denormal(True)", "flushed"), ("", "None")]
)
def test_torchs_threads_flush_only_if_they_were_started_so(first: str, expected: str) -> None:
    script = TWO_THREADS.format(first=first)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == expected


def test_context_gives_back_what_was_set() -> None:
    with flushed_denormals():
        with flushed_denormals():
            pass
        assert flushes()
    assert not flushes()
