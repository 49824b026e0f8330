"""Training steps a second of packs on a device, beside the loop that a researcher would write."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from gpu_images import CIFAR_LIKE, MNIST_LIKE
from plain_loop import steps, with_masks

from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.resolve import resolve
from lth_core.spec import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec
from lth_core.train import Trainer
from lth_core.train.loop import Run
from lth_core.train.pack.forward import Way, ways_of
from lth_core.train.pack.pack import Pack

Row = dict[str, Any]

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Sizes of packs of small networks."""
DENSITY = 0.2
NEVER = "1000000it"
WARM_UP = 12
"""Steps before a measurement; a GPU captures its graphs in them."""


@dataclass(frozen=True)
class Workload:
    """A network in training, and the sizes of its packs."""

    name: str
    data: DataSpec
    train: TrainSpec
    sizes: tuple[int, ...]


WORKLOADS = (
    Workload("lenet-300-100", DataSpec(name=MNIST_LIKE),
             TrainSpec(lr=1.2e-3, batch_size=60, steps=NEVER, evaluate_every=NEVER), SIZES),
    Workload("resnet-20", DataSpec(name=CIFAR_LIKE, augment="crop_flip"),
             TrainSpec(optimizer="sgd", lr=0.1, momentum=0.9, batch_size=128, steps=NEVER,
                       evaluate_every=NEVER), (1, 4, 8, 16)),
)  # fmt: skip


def speeds(device: torch.device, seconds: float, until: float, small: bool) -> Iterator[Row]:
    """Steps a second, summed over a pack's networks, by network, precision, way and size of the pack.

    Args:
        seconds: of each measurement.
        until: time by `time.monotonic` at which no other measurement begins.
        small: whether to measure little, to see that it runs.
    """
    for workload in WORKLOADS[:1] if small else WORKLOADS:
        for precision in ("fp32",) if small else ("fp32", "bf16"):
            train = replace(workload.train, precision=precision)  # type: ignore[arg-type]
            job = _job(replace(workload, train=train))
            about = {"figure": "training steps a second", "network": workload.name,
                     "precision": precision, "batch": train.batch_size}  # fmt: skip
            plain = _plain(job, device, seconds)
            yield {**about, "loop": "textbook", "steps_per_second": plain}
            for size, way in _packs(job, device, SIZES[:2] if small else workload.sizes):
                if time.monotonic() > until:
                    return
                row = {**about, "loop": "lth_core", "pack": size, "way": way.value}
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)
                try:
                    speed = _pack(job, size, way, device, seconds)
                except RuntimeError as error:  # memory, or a kernel that the device lacks
                    yield {**row, "outcome": "failed", "reason": str(error)[:2000]}
                    continue
                yield {**row, "steps_per_second": speed, "times_textbook": round(speed / plain, 2),
                       **_memory(device)}  # fmt: skip


def _packs(job: Job, device: torch.device, sizes: tuple[int, ...]) -> Iterator[tuple[int, Way]]:
    """Sizes of packs, each with the ways in which it may be computed."""
    ways = ways_of(Trainer(device=str(device)).model(job), device)
    for size in sizes:
        yield from ((size, way) for way in (ways if size > 1 else ways[:1]))


def _job(workload: Workload) -> Job:
    """The first ticket of a random mask; its mask needs no training."""
    spec = TicketSpec(
        data=workload.data, model=ModelSpec(name=workload.name), train=workload.train, levels=1,
        branches=("ticket",),
        prune=PruneSpec(when="before", score="random", fraction=1 - DENSITY, scope="layerwise"),
    )  # fmt: skip
    *_, level = levels(resolve(spec))
    return level["ticket"]


def _plain(job: Job, device: torch.device, seconds: float) -> float:
    trainer = Trainer(device=str(device))
    dataset = trainer.data(job)
    model = with_masks(trainer.model(job), DENSITY).to(device).train()  # in torch's own layout
    loop = steps(model, dataset, job.train, device, job.data.augment != "none")
    return _rate(loop, 1, device, seconds)


def _pack(job: Job, size: int, way: Way, device: torch.device, seconds: float) -> float:
    trainer = Trainer(device=str(device))
    jobs = [replace(job, seed=seed) for seed in range(size)]
    return _rate(
        iter(Pack([Run(trainer._prepare(each).task) for each in jobs], way)), size, device, seconds
    )


def _rate(loop: Iterator[Any], each: int, device: torch.device, seconds: float) -> float:
    """Steps a second of a loop whose every step counts ``each`` times."""
    for _ in islice(loop, WARM_UP):
        pass
    _wait(device)
    started, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        for _ in islice(loop, 10):
            count += each
        _wait(device)
    loop.close()  # type: ignore[attr-defined]
    return round(count / passed, 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> Row:
    if device.type != "cuda":
        return {}
    return {"memory_mib": round(torch.cuda.max_memory_allocated(device) / 2**20)}
