"""Speeds of packs from the store."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pack_jobs import TICKETS, dense_of, searches

from lth_core import Trainer
from lth_core.jobs.recipes import Job
from lth_core.store import Store
from lth_core.train.loop import Task
from lth_core.train.pack import size
from lth_core.train.pack.forward import Way
from lth_core.train.pack.rules import pack_key
from lth_core.train.pack.size import KIND, SIZES, PackSizes, pack_speeds_key

CPU = torch.device("cpu")


def dense() -> Job:
    return dense_of(searches([0], [0], **TICKETS)[0])


def unmeasured(job: Job) -> Any:
    raise AssertionError("nothing is measured")


@pytest.mark.parametrize(
    ("speeds", "most", "gain"),
    [
        ({"1": 100.0, "2": 150.0, "4": 250.0, "8": 240.0}, 2, 1.5),
        ({"1": 100.0, "2": 150.0, "4": 250.0, "8": 240.0}, 3, 2.0),
        ({"1": 100.0, "2": 150.0, "4": 250.0, "8": 240.0}, 30, 2.5),
        ({"1": 100.0, "2": 150.0, "4": 250.0, "8": 240.0}, 1, 1.0),
        ({"1": 100.0, "2": 110.0}, 2, 1.0),
    ],
)
def test_gain_is_that_of_the_fastest_pack_that_the_jobs_fill(
    speeds: dict[str, float], most: int, gain: float
) -> None:
    store, job = Store(), dense()
    store.put(KIND, pack_speeds_key(job, CPU), {"way": "stacked", "steps_per_second": speeds})
    assert PackSizes(store, CPU, unmeasured, unmeasured).gain(job, 0, most) == pytest.approx(gain)


def test_nothing_is_gained_where_no_speed_is_known_or_a_job_has_no_program() -> None:
    job = dense()
    assert PackSizes(Store(), CPU, unmeasured, unmeasured).gain(job, 10, 8) == 1.0
    own = replace(job, model=replace(job.model, name="mine:net"))
    assert pack_key(own) is None
    assert PackSizes(Store(), CPU, unmeasured, unmeasured).gain(own, 10**6, 8) == 1.0


@pytest.mark.parametrize(("speeds", "measured"), [
    ([100, 98, 180, 200, 120], [1, 2, 4, 8, 16]), ([100, 98, 97], [1, 2, 4]), ([100, 80], [1, 2]),
])  # fmt: skip
def test_sizes_are_measured_until_they_are_much_slower_or_twice(
    speeds: list[float], measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(speeds)
    monkeypatch.setattr(size, "_speed", lambda tasks, way, device: next(left))
    task = Trainer(device="cpu")._with_task(dense()).task
    assert list(size.measure(lambda: task, CPU).steps_per_second) == measured


def test_task_alone_has_its_layers_and_is_in_no_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, job = Trainer(device="cpu"), dense()
    measured, prepared = list[list[Task]](), list[Task]()

    def alone(task: Task) -> Task:
        prepared.append(task)
        return task

    def speed(tasks: list[Task], way: Way, device: torch.device) -> float:
        measured.append(tasks)
        return 1.0

    monkeypatch.setattr(size, "_speed", speed)
    size.measure(lambda: trainer._with_task(job).task, CPU, alone)
    first, *packs = measured
    assert first == prepared
    assert [len(tasks) for tasks in packs] == list(SIZES[1:])
    assert not any(task is prepared[0] for tasks in packs for task in tasks)
