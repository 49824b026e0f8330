"""Measured training speeds, from which a plan estimates its duration."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from lth_core.data import PartSizes, part_sizes
from lth_core.jobs.recipes import Job
from lth_core.spec import DataSpec, ModelSpec, Pruning, TrainSpec, describe, sha256
from lth_core.spec.fields import steps_in
from lth_core.store import Entry, Store
from lth_core.store.decode import check, read_entry

KIND = "speeds"
"""Kind of store entry."""

_DATA = ("name", "fingerprint", "validation", "fraction", "augment")
_MODEL = ("name", "widths", "width", "depth", "stem", "dropout", "fingerprint")
_TRAIN = ("optimizer", "batch_size", "precision")
_FINDS = ("when", "score", "grow", "every")


TRAINING_PASSES = 3
"""Forward passes that cost as much as a training step, of the same examples: its own, and two for
the backward pass."""


class SpeedFactors(NamedTuple):
    """The specs of a job on which the duration of a step depends."""

    data: DataSpec
    model: ModelSpec
    train: TrainSpec
    finds: Pruning | None


def speed_key(job: Job | SpeedFactors, device: torch.device | str) -> str:
    """sha256 of the factors of seconds per step: data, network, optimizer, batch size, precision,
    changes of the mask, the kind of device (``cpu``, ``cuda``), and the share of evaluations.

    The share is rounded to tenths, and at least one: trainings that differ in their number of steps
    have other intervals between evaluations, but about the same speed.
    """
    parts = ((job.data, _DATA), (job.model, _MODEL), (job.train, _TRAIN), (job.finds, _FINDS))
    values = [
        [describe(getattr(spec, name, None)) for name in names] if spec else None
        for spec, names in parts
    ]
    evaluated, trained = passes_per_step(job.train, _sizes(job.data))
    share = max(0.1, round(evaluated / (evaluated + trained), 1))
    return sha256([*values, share, torch.device(device).type])


def passes_per_step(train: TrainSpec, sizes: PartSizes) -> tuple[float, float]:
    """Forward passes of an example in a step's share of an evaluation, and in the step itself.

    With ``evaluate_test: best`` no test examples are counted: how many evaluations have them is not
    known before.

    Args:
        train: all durations in steps.
    """
    steps_per_epoch = -(-sizes.train // train.batch_size)
    evaluated = sizes.validation + (sizes.test if train.evaluate_test == "grid" else 0)
    return (
        evaluated / steps_in(train.evaluate_every),
        TRAINING_PASSES * sizes.train / steps_per_epoch,
    )


@lru_cache(maxsize=256)
def _sizes(spec: DataSpec) -> PartSizes:
    return part_sizes(spec)


def store_speed(
    store: Store, job: Job, seconds_per_step: float, device: torch.device | str
) -> None:
    """Store seconds per step, evaluations included, for jobs of one speed; replaces a value."""
    meta = {"seconds_per_step": seconds_per_step, "device": torch.device(device).type}
    store.put(KIND, speed_key(job, device), meta)


def seconds_per_step(
    store: Store, job: Job | SpeedFactors, device: torch.device | str
) -> float | None:
    """Stored seconds per step of jobs of one speed; None where missing or corrupt."""
    return read_entry(store, KIND, speed_key(job, device), _speed_of)


def _speed_of(entry: Entry) -> float:
    check(seconds := entry.meta["seconds_per_step"], float)
    if not float(seconds) >= 0:
        raise ValueError(f"seconds_per_step must be at least 0, but got {seconds}")
    return float(seconds)
