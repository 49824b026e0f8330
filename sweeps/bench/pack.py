"""Benchmark of packs: training steps a second of several networks as one program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from lth_core.models.latency import torch_threads
from lth_core.spec import ModelSpec, TrainSpec
from lth_core.train import Trainer
from lth_core.train.loop import Run
from lth_core.train.pack.pack import Pack
from sweeps.bench.baselines import images
from sweeps.bench.baselines.turns import rate_text, take_turns, times_faster
from sweeps.bench.train import Workload, our_turn, random_mask, source_of, task_of

SIZES = (1, 3, 9, 27)
"""Numbers of networks in a pack."""


def _mlp(name: str, data: str, *widths: int) -> Workload:
    return Workload(
        name=name, data=data, model=ModelSpec(name="mlp", widths=widths),
        train=TrainSpec(optimizer="adam", lr=1.2e-3, batch_size=60), steps=60, rounds=5,
    )  # fmt: skip


WORKLOADS = (
    (_mlp("mlp 64-32-32-10", "digits", 32, 32), SIZES),
    (_mlp("mlp 40-100-100-10", "mnist1d", 100, 100), SIZES),
    (_mlp("mlp 64-300-100-10", "digits", 300, 100), SIZES),
    (
        Workload(
            name="resnet-20", data=images.CIFAR10, model=ModelSpec(name="resnet-20"),
            train=TrainSpec(optimizer="sgd", lr=0.1, momentum=0.9, batch_size=128), augment=True,
            steps=1, rounds=3,
        ),
        (1, 3),
    ),
)  # fmt: skip
"""Networks, and sizes of their packs. A step of a ResNet-20 takes half a gigabyte a network."""


@dataclass(frozen=True)
class PackBench:
    """Speed of a pack, one thread, float32."""

    network: str
    data: str
    """Origin of the examples."""
    size: int
    """Number of networks."""
    steps_per_second: float
    """Steps a second, summed over the networks."""
    gain: float
    """Steps a second as a multiple of those of one network trained alone."""

    def __str__(self) -> str:
        return (
            f"times the steps a second of one, {self.network} in packs of {self.size}: "
            f"{rate_text(self.steps_per_second)}; {self.data}"
        )


def bench_pack(
    workloads: Sequence[tuple[Workload, Sequence[int]]] = WORKLOADS,
) -> Iterator[PackBench]:
    """Speeds of packs of each size; the first size must be 1."""
    with torch_threads(1):
        for workload, sizes in workloads:
            yield from _bench(workload, sizes)


def _bench(workload: Workload, sizes: Sequence[int]) -> Iterator[PackBench]:
    trainer, job = Trainer(device="cpu"), workload.job("fp32")
    mask = random_mask(trainer, job)

    def pack(size: int) -> Callable[[], None]:
        jobs = [replace(job, seed=seed) for seed in range(size)]
        return our_turn(Pack([Run(task_of(trainer, each, mask)) for each in jobs]), workload.steps)

    seconds = take_turns({str(size): pack(size) for size in sizes}, workload.rounds)
    for size in sizes:
        own = seconds[str(size)]
        yield PackBench(
            network=workload.name, data=source_of(workload), size=size,
            steps_per_second=size * workload.steps / median(own),
            gain=size * times_faster(seconds["1"], own),
        )  # fmt: skip
