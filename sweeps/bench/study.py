"""Benchmark of a whole study: a sweep against a script with the textbook loop.

The study has the standard shape: LeNet-300-100, 12 levels, 3 seeds, 2 rewind points, branches
ticket, reinit and random_mask. Its trainings are short: an epoch of half of MNIST. Times are CPU
seconds, which other processes hardly change. So the script is compared as if it ran one process on
each core; what it loses by running one training at a time on all cores is measured apart.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median
from typing import Any

from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.models.latency import torch_threads
from lth_core.parallel import usable_cpus
from lth_core.spec import Precision
from lth_core.train import Trainer
from lth_core.train.loop import run
from sweeps.bench.baselines import images, textbook
from sweeps.bench.baselines.turns import take_turns
from sweeps.bench.sweep import sweep_cpu_seconds, trainings
from sweeps.bench.train import random_mask, task_of
from sweeps.plan.plan import make_plan
from sweeps.studies.reader import parse_study

STANDARD: dict[str, Any] = {
    "name": "bench-study",
    "base": {
        "data": {"name": images.HALF_OF_MNIST, "validation": 2500},
        "model": {"name": "lenet-300-100", "init": "xavier_normal"},
        "train": {
            "optimizer": "sgd", "lr": 0.1, "batch_size": 128, "steps": "1ep",
            "evaluate_every": "1ep", "precision": "bf16",
        },
        "levels": 12,
        "branches": ["ticket", "reinit", "random_mask"],
    },
    "axes": {"seed": [0, 1, 2], "rewind": ["0it", "5%"]},
}  # fmt: skip
"""The study. Validation is a twelfth of the training images, as 5,000 of all are."""
LONGER = 10
"""Epochs of a usual training. What a sweep does outside training takes as long as before."""
LIMIT = 10.0
"""Least speed-up of a sweep of trainings of that length, against one training at a time."""
TRAINING, OUTSIDE = 30.0, 0.05
"""Seconds of a training, and the largest share of the cores' time that may then lie outside."""
ROUNDS, MEASURED = 5, 50
"""Turns of each loop, and steps of a turn of the textbook loop."""


@dataclass(frozen=True)
class StudyBench:
    """Times of a study, in CPU seconds.

    steps, trainings: of the script.
    unique_steps, unique_trainings: of the sweep, which shares equal trainings.
    textbook, fp32, bf16: of one training with one evaluation, on one thread: by the textbook loop,
        and by ours in two precisions.
    length: steps of that training.
    sweep: of the sweep, with Ray's start, publishing and the report.
    outside: of the same sweep with trainings of one or two steps, without these trainings: what a
        sweep does outside training.
    alone: times as fast as one training at a time on all cores is one process on each core, of
        the textbook loop.
    pack: largest number of trainings in a pack.
    images: origin of the images, in words.
    """

    steps: int
    trainings: int
    unique_steps: int
    unique_trainings: int
    textbook: float
    fp32: float
    bf16: float
    length: int
    sweep: float
    outside: float
    alone: float
    pack: int
    images: str

    def script_seconds(self, longer: float = 1) -> float:
        """Time of the textbook script, with trainings that are some times as long."""
        return longer * self.textbook * self.steps / self.length

    def sweep_seconds(self, longer: float = 1) -> float:
        """Time of the sweep, with trainings that are some times as long."""
        return longer * (self.sweep - self.outside) + self.outside

    def times(self, longer: float = 1) -> float:
        """Speed of the sweep as a multiple of the script's, one process on each core."""
        return self.script_seconds(longer) / self.sweep_seconds(longer)

    def factors(self, longer: float = 1) -> dict[str, float]:
        """The parts of `times`, whose product it is, by name."""
        packs = f"packs (of {self.pack} at most) and workers side by side"
        alone = self.bf16 * self.unique_steps / self.length
        return {
            "the loop": self.textbook / self.fp32,
            "precision bf16": self.fp32 / self.bf16,
            "sharing": self.steps / self.unique_steps,
            packs: alone / (self.sweep - self.outside),
            "time outside training": 1 - self.outside / self.sweep_seconds(longer),
        }

    def outside_share(self, training: float) -> float:
        """Share of the sweep's time outside training if each training took some seconds."""
        return self.outside / (self.outside + training * self.unique_trainings)

    def text(self, longer: float = 1) -> str:
        """Times of script and sweep, in words."""
        return (
            f"{self.script_seconds(longer):,.0f} CPU seconds for {self.trainings} trainings, "
            f"extrapolated from {ROUNDS} x {MEASURED} steps and {ROUNDS} evaluations, against "
            f"{self.sweep_seconds(longer):,.0f} for {self.unique_trainings}; {self.images}"
        )

    @property
    def numbers(self) -> Mapping[str, float]:
        """The measured times, by name."""
        return {
            "textbook_training_seconds": self.textbook, "fp32_training_seconds": self.fp32,
            "bf16_training_seconds": self.bf16, "sweep_seconds": self.sweep,
            "outside_seconds": self.outside,
        }  # fmt: skip


def bench_study(fields: Mapping[str, Any] = STANDARD) -> StudyBench:
    """Times of a study.

    Raises:
        LaunchError: a sweep fails.
    """
    plan, short = make_plan(parse_study(fields)), shortened(fields)
    dense, short_dense = (_dense(each) for each in (fields, short))
    took = _training_seconds(dense, short_dense)
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        sweep = sweep_cpu_seconds(folder, fields)
        packs = [int(each.made_with.get("pack", 1)) for each in trainings(folder)]
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        whole = sweep_cpu_seconds(folder, short)
    counts = plan.counts
    return StudyBench(
        steps=counts.steps, trainings=counts.trainings, unique_steps=counts.unique_steps,
        unique_trainings=counts.unique_trainings, textbook=took["textbook"], fp32=took["fp32"],
        bf16=took["bf16"], length=dense.last, sweep=sweep,
        outside=whole - counts.unique_trainings * took["short"], alone=took["alone"],
        pack=max(packs), images=images.source(dense.data.name),
    )  # fmt: skip


def shortened(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The study with trainings of two steps, or of one after a rewind, and as many evaluations.

    A training without steps would be evaluated on the training images too.
    """
    base = fields["base"]
    train = {**base["train"], "steps": "2it", "evaluate_every": "2it"}
    axes = {**fields["axes"], "rewind": ["0it", "1it"]}
    return {**fields, "base": {**base, "train": train}, "axes": axes}


def _dense(fields: Mapping[str, Any]) -> Job:
    return next(levels(make_plan(parse_study(fields)).trials[0].spec))["dense"]


def _training_seconds(job: Job, short: Job) -> dict[str, float]:
    """CPU seconds of one training by the textbook loop, and by ours in fp32 and bf16, in turns.

    Preparation is not in them: a sweep's is outside training. `short` is the time of the short
    training; `alone` is `StudyBench.alone`.
    """
    trainer = Trainer(device="cpu")
    dataset, mask = trainer.data(job), random_mask(trainer, job)
    model = textbook.with_masks(trainer.model(job), mask)
    steps = textbook.training(_with(job, "fp32"), dataset, model)
    held_out = [
        textbook.evaluated(job, dataset, part) for part in (dataset.validation, dataset.test)
    ]

    def train_textbook() -> None:
        for _ in islice(steps, MEASURED):
            pass

    def train_on_all_cores() -> None:
        with torch_threads(usable_cpus()):
            train_textbook()

    def evaluate_textbook() -> None:
        for batches in held_out:
            textbook.evaluate(model, batches)

    def ours(job: Job, precision: Precision) -> Callable[[], object]:
        tasks = [task_of(trainer, _with(job, precision), mask) for _ in range(1 + ROUNDS)]
        return lambda: run(tasks.pop())

    contenders = {
        "steps": train_textbook, "evaluation": evaluate_textbook,
        "fp32": ours(job, "fp32"), "bf16": ours(job, "bf16"),
        "short": ours(short, short.train.precision),
    }  # fmt: skip
    with torch_threads(1):
        seconds = take_turns(contenders, ROUNDS)
        walls = take_turns(
            {"one": train_textbook, "all": train_on_all_cores}, ROUNDS, time.perf_counter
        )
    took = {name: median(each) for name, each in seconds.items()}
    took["textbook"] = took["steps"] * (job.last - job.first) / MEASURED + took["evaluation"]
    took["alone"] = loss_of_one_at_a_time(min(walls["one"]), min(walls["all"]), usable_cpus())
    return took


def loss_of_one_at_a_time(one: float, together: float, cpus: int) -> float:
    """Times as fast as one training at a time on all cores is one process on each core.

    Args:
        one, together: wall time on one thread, and on as many as there are cores. A script for
            which more threads are slower uses one.
    """
    return cpus * min(together, one) / one


def _with(job: Job, precision: Precision) -> Job:
    return replace(job, train=replace(job.train, precision=precision))
