"""The figure of Frankle & Carbin 2019, section 2: accuracy by density of LeNet-300-100, in short."""

import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from gpu_images import MNIST, mnist_folder

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.lottery import levels
from lth_core.resolve import resolve
from lth_core.store import Store

SEEDS, LEVELS, STEPS = 3, 16, 3000
BRANCHES = ("ticket", "reinit", "random_mask")


def spec_of(small: bool) -> TicketSpec:
    """MNIST where it is found, else the digits; the paper trains for 50,000 steps."""
    real = mnist_folder() is not None and not small
    steps = 40 if small else STEPS
    return TicketSpec(
        data=DataSpec(name=MNIST if real else "digits"), model=ModelSpec(name="lenet-300-100"),
        train=TrainSpec(lr=1.2e-3, batch_size=60, steps=steps, evaluate_every=steps // 4),
        prune=PruneSpec(fraction=0.2, output_fraction=0.1), levels=1 if small else LEVELS,
        branches=BRANCHES,
    )  # fmt: skip


def figure(device: str, until: float, small: bool) -> Iterator[dict[str, Any]]:
    """Accuracies of each level and branch, mean and deviation over seeds, level by level.

    Args:
        until: time by `time.monotonic` at which no other level begins.
    """
    spec, store, started = spec_of(small), Store(), time.monotonic()
    specs = [resolve(replace(spec, seed=seed)) for seed in range(2 if small else SEEDS)]
    trainer = Trainer(store, device)
    searches = [find_tickets(each, trainer) for each in specs]
    about = {
        "figure": "accuracy by density", "network": "lenet-300-100",
        "data": "MNIST" if spec.data.name == MNIST else spec.data.name,
        "steps": spec.train.steps, "seeds": len(specs),
    }  # fmt: skip
    for jobs in zip(*map(levels, specs), strict=True):
        if time.monotonic() > until:
            break
        trainer.train_ahead([job for branches in jobs for job in branches.values()])
        rows = [row for search in searches for row in next(search).records]
        for branch in dict.fromkeys(row["branch"] for row in rows):
            own = [row for row in rows if row["branch"] == branch]
            accuracies = [row["final_test_accuracy"] for row in own]
            yield {
                **about, "level": own[0]["level"], "density": round(own[0]["density"], 4),
                "branch": branch, "accuracy": round(mean(accuracies), 4),
                "deviation": round(stdev(accuracies), 4),
                "seconds": round(time.monotonic() - started, 1),
            }  # fmt: skip
