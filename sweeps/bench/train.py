"""Benchmark of training: steps a second of ours, of a textbook loop, and at the floor."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median
from typing import cast

import torch

from lth_core.data import Dataset
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.masks import Mask
from lth_core.models.latency import device_name, torch_threads
from lth_core.resolve import resolve
from lth_core.spec import DataSpec, ModelSpec, Precision, TicketSpec, TrainSpec
from lth_core.train import Trainer
from lth_core.train.evaluate import evaluate as our_evaluate
from lth_core.train.layers.linear import LinearChoice
from lth_core.train.loop import Run, Task
from lth_core.train.precision import arithmetic
from sweeps.bench.baselines import images, textbook
from sweeps.bench.baselines.floor import GEMM_FLOPS, products, traffic, work_of
from sweeps.bench.baselines.turns import rate_text, take_turns, times_faster

DENSITY = 0.2
"""Share of the weights that the masks keep, at random."""
MANY = "1000000it"
"""More steps than are measured, so that no evaluation falls among them."""
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A network, its data and its training.

    name: as rows name it.
    train: in float32.
    fraction: share of the training examples.
    steps: in each turn.
    evaluated: examples of an evaluation, at most.
    rounds: turns of each contender.
    precisions: that are compared.
    limits: least times as many steps a second as the textbook loop in float32, by precision.
    """

    name: str
    data: str
    model: ModelSpec
    train: TrainSpec
    fraction: float = 1.0
    augment: bool = False
    steps: int
    rounds: int
    evaluated: int = 1000
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    limits: Mapping[Precision, float] = field(default_factory=dict)

    def job(self, precision: Precision) -> Job:
        """The training, without evaluations."""
        train = replace(self.train, steps=MANY, evaluate_every=MANY, precision=precision)
        data = DataSpec(
            name=self.data, validation=0.0, fraction=self.fraction,
            augment="crop_flip" if self.augment else "none",
        )  # fmt: skip
        spec = TicketSpec(data=data, model=self.model, train=train, levels=0)
        return next(levels(resolve(spec)))["dense"]


WORKLOADS = (
    Workload(
        name="lenet-300-100", data=images.MNIST, model=ModelSpec(name="lenet-300-100"),
        train=TrainSpec(optimizer="sgd", lr=0.1, batch_size=128), fraction=0.2, steps=94, rounds=5,
        limits={"fp32": 7.0, "bf16": 10.0},
    ),
    Workload(
        name="resnet-20", data=images.CIFAR10, model=ModelSpec(name="resnet-20"),
        train=TrainSpec(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, batch_size=128),
        augment=True, steps=1, rounds=11, evaluated=128,
        limits={"bf16": 3.0},
    ),
    Workload(
        name="mlp 64-32-32-10", data="digits", model=ModelSpec(name="mlp", widths=(32, 32)),
        train=TrainSpec(optimizer="adam", lr=1.2e-3, batch_size=60), steps=200, rounds=9,
        precisions=("fp32",),
    ),
)  # fmt: skip
"""Measured trainings. LeNet's turn is an epoch of 12,000 images."""


@dataclass(frozen=True)
class TrainBench:
    """Speed of a training without evaluations, one thread, or of evaluations."""

    network: str
    precision: Precision
    data: str
    """Origin of the examples."""
    ours: float
    """Steps a second."""
    textbook: float
    """Steps a second of the textbook loop in float32."""
    textbook_alike: float
    """Steps a second of the textbook loop in the same precision."""
    floor: float
    """Steps a second at the floor."""
    gflops: float
    """Billions of FLOPs a second of the fastest matrix product in this precision."""
    times_textbook: float
    """Median of the turns' ratios: how many times as fast as the textbook loop in float32."""
    times_alike: float
    """The same, against the textbook loop in the same precision."""
    at_least: float | None
    """Limit of `times_textbook`."""

    @property
    def times_floor(self) -> float:
        """Duration of a step as a multiple of the floor's."""
        return self.floor / self.ours

    @property
    def numbers(self) -> dict[str, float]:
        """The measured rates, by name."""
        return {
            "steps_per_second": self.ours, "textbook_steps_per_second": self.textbook,
            f"textbook_{self.precision}_steps_per_second": self.textbook_alike,
            "floor_steps_per_second": self.floor, "gflops": self.gflops,
            "times_floor": self.times_floor, "times_textbook_alike": self.times_alike,
        }  # fmt: skip

    def __str__(self) -> str:
        ours, textbook, floor = map(rate_text, (self.ours, self.textbook, self.floor))
        alike = ""
        if self.precision != "fp32":
            alike = f", {rate_text(self.textbook_alike)} in {self.precision}"
        return (
            f"times a textbook loop, {self.network} {self.precision}: {ours} steps a second, "
            f"textbook {textbook} in fp32{alike}, floor {floor} ({self.times_floor:.1f} times its "
            f"time); {self.data}"
        )


@dataclass(frozen=True)
class EvaluationBench:
    """Speed of evaluations in float32, one thread, in examples a second."""

    network: str
    data: str
    ours: float
    textbook: float
    times_textbook: float
    at_least: None = None
    """There is no limit."""

    @property
    def numbers(self) -> dict[str, float]:
        """The measured rates, by name."""
        return {"examples_per_second": self.ours, "textbook_examples_per_second": self.textbook}

    def __str__(self) -> str:
        return (
            f"times a textbook evaluation, {self.network} fp32: {rate_text(self.ours)} examples a "
            f"second, textbook {rate_text(self.textbook)}; {self.data}"
        )


def bench_train(
    workloads: Sequence[Workload] = WORKLOADS,
) -> Iterator[TrainBench | EvaluationBench]:
    """Speeds of each workload in each precision, and of its evaluation."""
    with torch_threads(1):
        for workload in workloads:
            yield from _bench(workload)


def _bench(workload: Workload) -> Iterator[TrainBench | EvaluationBench]:
    trainer, data = Trainer(device="cpu"), source_of(workload)
    job = workload.job("fp32")
    dataset = trainer.data(job)
    mask = random_mask(trainer, job)
    model = textbook.with_masks(trainer.model(job), mask)
    batch = dataset.normalize(dataset.train.x[: workload.train.batch_size])
    work = work_of(model, batch, workload.train.optimizer, workload.train.momentum)
    summed, moved = traffic(trainer.parameters(job))
    contenders: dict[str, Callable[[], object]] = {"traffic": summed}
    for precision in workload.precisions:
        ours = Run(task_of(trainer, workload.job(precision), mask))
        contenders[f"ours {precision}"] = our_turn(ours, workload.steps)
        theirs = textbook.training(workload.job(precision), dataset, model)
        contenders[f"textbook {precision}"] = _turn(theirs, workload.steps)
        contenders |= {f"gemm {precision} {n}": run for n, run in products(precision).items()}
    seconds = take_turns(contenders, workload.rounds)
    slow = seconds["textbook fp32"]
    for precision in workload.precisions:
        own, alike = seconds[f"ours {precision}"], seconds[f"textbook {precision}"]
        rate = GEMM_FLOPS / min(
            median(s) for name, s in seconds.items() if name.startswith(f"gemm {precision}")
        )
        yield TrainBench(
            network=workload.name, precision=precision, data=data,
            ours=workload.steps / median(own), textbook=workload.steps / median(slow),
            textbook_alike=workload.steps / median(alike),
            floor=1 / work.seconds(rate, moved / median(seconds["traffic"])), gflops=rate / 1e9,
            times_textbook=times_faster(slow, own), times_alike=times_faster(alike, own),
            at_least=workload.limits.get(precision),
        )  # fmt: skip
    yield _bench_evaluation(workload, trainer, dataset, mask, data)


def _bench_evaluation(
    workload: Workload, trainer: Trainer, dataset: Dataset, mask: Mask, data: str
) -> EvaluationBench:
    test = dataset.test.at(torch.arange(min(workload.evaluated, len(dataset.test))))
    job = workload.job("fp32")
    task, model = task_of(trainer, job, mask), textbook.with_masks(trainer.model(job), mask)
    batches = textbook.evaluated(job, dataset, test)

    def ours() -> None:
        with arithmetic("fp32", CPU):
            our_evaluate(task.model, dataset, test)

    contenders = {"ours": ours, "textbook": lambda: textbook.evaluate(model, batches)}
    seconds = take_turns(contenders, workload.rounds)
    return EvaluationBench(
        workload.name, data, len(test) / median(seconds["ours"]),
        len(test) / median(seconds["textbook"]),
        times_faster(seconds["textbook"], seconds["ours"]),
    )  # fmt: skip


def random_mask(trainer: Trainer, job: Job, density: float = DENSITY) -> Mask:
    """A mask of the job's network that keeps each weight with a probability."""
    draw = torch.Generator().manual_seed(0)
    full = trainer.mask(job.mask, job)
    return {name: torch.rand(m.shape, generator=draw) < density for name, m in full.items()}


def task_of(trainer: Trainer, job: Job, mask: Mask) -> Task:
    """The task of a job under a fixed mask, with the layers that the trainer would choose."""
    start = trainer.start(job)
    task = trainer.prepare(job, start, mask, lambda: start).task
    if job.train.precision != "bf16":
        LinearChoice(trainer.store).apply(task.model, job.train.batch_size)
    return task


def our_turn(trained: Iterable[int], steps: int) -> Callable[[], None]:
    """A function that trains a `Run` or a `Pack` by the next steps."""

    def turn() -> None:
        # Closed after each turn: autocast would else stay on for the next contender.
        with closing(cast("Generator[int, None, None]", iter(trained))) as done:
            for _ in islice(done, steps):
                pass

    return turn


def _turn(steps: Iterator[float], count: int) -> Callable[[], None]:
    def turn() -> None:
        for _ in islice(steps, count):
            pass

    return turn


def source_of(workload: Workload) -> str:
    """Origin of the examples, batch size, threads and processor, in words."""
    where = images.source(workload.data)
    return f"{where}, batch {workload.train.batch_size}, one thread, {device_name(CPU)}"
