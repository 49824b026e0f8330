"""Measured training speeds, from which a plan estimates its duration."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lth_core.jobs.recipes import Job
from lth_core.spec import DataSpec, ModelSpec, Pruning, TrainSpec, describe, sha256
from lth_core.store import Entry, Store
from lth_core.store.decode import check, read_entry

KIND = "speeds"
"""Kind of store entry."""

_DATA = ("name", "fingerprint", "validation", "fraction", "augment")
_MODEL = ("name", "widths", "width", "depth", "stem", "dropout", "fingerprint")
_TRAIN = ("optimizer", "batch_size", "evaluate_every", "precision")
_FINDS = ("when", "score", "grow", "every")


class SpeedFactors(NamedTuple):
    """The specs of a job on which the duration of a step depends."""

    data: DataSpec
    model: ModelSpec
    train: TrainSpec
    finds: Pruning | None


def speed_key(job: Job | SpeedFactors, device: torch.device | str) -> str:
    """sha256 of the factors of seconds per step: data, network, optimizer, batch size, evaluation,
    precision, changes of the mask, and the kind of device (``cpu``, ``cuda``)."""
    parts = ((job.data, _DATA), (job.model, _MODEL), (job.train, _TRAIN), (job.finds, _FINDS))
    values = [
        [describe(getattr(spec, name, None)) for name in names] if spec else None
        for spec, names in parts
    ]
    if job.train.evaluate_test != "grid":  # no part of the keys of older code
        values.append([job.train.evaluate_test])
    return sha256([*values, torch.device(device).type])


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
