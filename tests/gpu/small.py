"""Small searches that these tests make on two devices, and a user's data as a study file names it."""

from dataclasses import replace
from typing import Any

import torch

from lth_core import DataSpec, ModelSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.data import Dataset, Split
from lth_core.data.dataset import raw
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.resolve import resolve
from lth_core.train.training import Curves

VARIES = ("train_seconds", "search_seconds", "reused")
"""Columns that differ between two equal searches."""

DIGITS = TicketSpec(
    model=ModelSpec(widths=(32, 16)), train=TrainSpec(lr=0.01, steps=12, evaluate_every=6), levels=1,
    branches=("ticket",),
)  # fmt: skip
"""An mlp on the digits: 12 steps, one pruning."""

PIXELS = replace(
    DIGITS,
    data=DataSpec(name="small:patches", validation=40, augment="crop_flip"),
    model=ModelSpec(name="resnet-8", width=0.25),
    train=TrainSpec(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3, batch_size=40, steps=4,
                    evaluate_every=2),
)  # fmt: skip
"""A network of convolutions on small colour images, cropped and flipped: 4 steps, one pruning."""


def patches(spec: DataSpec) -> Dataset:
    """240 images 3x16x16 of noise, of four classes: that of the brightest quarter."""
    stream = torch.Generator().manual_seed(7)
    y = torch.randint(0, 4, (240,), generator=stream)
    x = torch.randint(0, 160, (240, 3, 16, 16), generator=stream, dtype=torch.uint8)
    for label in range(4):
        row, column = divmod(label, 2)
        x[y == label, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 60
    mean, std = torch.full((3, 1, 1), 95.0), torch.full((3, 1, 1), 53.0)
    return raw(Split(x[:200], y[:200]), Split(x[200:], y[200:]), mean, std, 4)


def records(spec: TicketSpec, trainer: Trainer) -> list[dict[str, Any]]:
    """Records of a search, without what varies."""
    rows = [row for level in find_tickets(spec, trainer) for row in level.records]
    return [{k: v for k, v in row.items() if k not in VARIES} for row in rows]


def dense_job(spec: TicketSpec) -> Job:
    return next(iter(levels(resolve(spec))))["dense"]


def curves(job: Job, trainer: Trainer) -> Curves:
    """Learning curves of a job."""
    return trainer([job])[0].training.curves
