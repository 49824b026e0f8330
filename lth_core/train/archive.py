"""How results are kept: a state's blobs in the store, and what a process has at hand."""

from __future__ import annotations

import logging
import platform
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from safetensors.torch import load, save
from torch import nn

from lth_core import masks, ticket
from lth_core.errors import CorruptEntryError, TicketFileError
from lth_core.jobs.recipes import Job
from lth_core.masks import Mask, State
from lth_core.store import Entry, Store
from lth_core.store.decode import check, understood
from lth_core.train.timings import remember_speed, speed_key
from lth_core.train.training import Training

STATE, MASK = "state.safetensors", "mask.safetensors"
T = TypeVar("T")

logger = logging.getLogger("lth")


def to_blobs(state: State, mask: Mask) -> dict[str, bytes]:
    """The mask's bits beside the rest, so that comparing masks reads one bit a weight."""
    packed = ticket.pack(state, mask)
    bits = {name for name in packed if name.startswith("mask/")}
    return {
        MASK: save({name: packed[name] for name in sorted(bits)}),
        STATE: save({name: packed[name] for name in packed.keys() - bits}),
    }


def from_blobs(entry: Entry, model: nn.Module) -> tuple[State, Mask]:
    """What `to_blobs` was given.

    Raises:
        CorruptEntryError, TicketFileError: it is not whole, or of another network.
    """
    shapes = {name: list(m.shape) for name, m in masks.ones(model).items()}
    with understood("state"):
        tensors = {**load(entry.blob(MASK)), **load(entry.blob(STATE))}
        state, mask = ticket.unpack(tensors, shapes)
    if _kinds(state) != _kinds(model.state_dict()):
        raise CorruptEntryError("state: its weights and buffers are another network's")
    return state, mask


def _kinds(state: State) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}


class Archive:
    """What a store has of trainings and of their rewind points; corrupt entries are as missing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: set[str] = set()
        """What was said to be corrupt: until it is made again, it is asked for time and again."""
        self._paces: set[str] = set()
        """Kinds of jobs of which this process has told the pace."""

    def entry(self, kind: str, digest: str) -> Entry | None:
        """An entry, if there is a sound one."""
        try:
            entry = self._store.get(kind, digest)
            if entry and kind == "measures":
                with understood(f"{kind}/{digest}"):
                    check(entry.meta, dict[str, float | None])
            return entry
        except CorruptEntryError as error:
            self._tell(str(error))
            return None

    def training(self, job: Job) -> Training | None:
        """What is remembered of a training."""
        entry = self.entry("trainings", job.digest)
        try:
            return Training.from_json(entry.meta) if entry else None
        except CorruptEntryError as error:
            self._tell(f"trainings/{job.digest}: {error}")
            return None

    def state(self, job: Job, model: nn.Module) -> tuple[State, Mask] | None:
        """The state a job ends with and its mask, from a rewind point or the job's own entry."""
        for kind in ("points", "trainings"):
            entry = self.entry(kind, job.digest)
            try:
                if entry:
                    return from_blobs(entry, model)
            except (CorruptEntryError, TicketFileError) as error:
                self._tell(f"{kind}/{job.digest}: {error}")
        return None

    def put_points(self, job: Job, points: Mapping[int, State], mask: Mask) -> None:
        """Keep states of a job by the step they were reached at."""
        for step, state in points.items():
            self.put_point(point(job, step), state, mask, job.digest)

    def put_point(self, at: Job, state: State, mask: Mask, of: str | None) -> None:
        """Keep one; ``of`` is the digest of the training whose point it is."""
        self._store.put("points", at.digest, {"step": at.last, "of": of}, to_blobs(state, mask))

    def pace(self, job: Job, seconds: float, device: torch.device) -> None:
        """Remember how long a training took: of each kind the first, for the plans to come."""
        if job.last > job.first and (key := speed_key(job, device)) not in self._paces:
            self._paces.add(key)
            remember_speed(self._store, job, seconds / (job.last - job.first), device)

    def _tell(self, corrupt: str) -> None:
        if corrupt not in self._told:
            logger.warning("store: %s; it is made again", corrupt)
            self._told.add(corrupt)


def point(job: Job, step: int) -> Job:
    """The job stopped at a step: what a rewind point's entry is named by."""
    return replace(job, last=step, keep=())


def made_with(device: torch.device) -> dict[str, str]:
    """Versions and device, as a result remembers them."""
    on_gpu = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def recent(cache: OrderedDict[str, T], key: str, make: Callable[[], T], size: int = 16) -> T:
    """The cached value, or the one just made; the least recently used goes."""
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    while len(cache) > size:
        cache.popitem(last=False)
    return cache[key]
