"""Trainings, tickets and latencies in the store; corrupt entries are read as missing ones."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from safetensors.torch import load, save
from torch import nn

from lth_core import masks, ticket
from lth_core.errors import CorruptEntryError, StoreError, TicketFileError
from lth_core.jobs.recipes import Job
from lth_core.jobs.transfer import GivenTicket
from lth_core.masks import Mask, State
from lth_core.models.latency import ChannelLatency
from lth_core.models.layers import state_of
from lth_core.store import Entry, Store
from lth_core.store.decode import check, decoding
from lth_core.store.locks import claimed
from lth_core.ticket import Ticket
from lth_core.train.checkpoint import shapes_and_types
from lth_core.train.timings import speed_key, store_speed
from lth_core.train.training import Training

STATE, MASK = "state.safetensors", "mask.safetensors"
T = TypeVar("T")

logger = logging.getLogger("lth")


def to_blobs(state: State, mask: Mask) -> dict[str, bytes]:
    """Blobs of a state and its mask, apart: a comparison of masks reads only the mask's.

    Args:
        state: weights and buffers in the model's shapes, by name.
        mask: (out, in, ...) bool of each prunable layer, by parameter name.
    """
    packed = ticket.pack(state, mask)
    bits = {name for name in packed if name.startswith("mask/")}
    return {
        MASK: save({name: packed[name] for name in sorted(bits)}),
        STATE: save({name: packed[name] for name in packed.keys() - bits}),
    }


def from_blobs(entry: Entry, job: Job, model: nn.Module) -> tuple[State, Mask]:
    """State and mask of a job from their blobs, in the shapes of ``model``.

    Raises:
        CorruptEntryError, TicketFileError: a blob is corrupt, or of another network.
    """
    shapes = {name: list(m.shape) for name, m in masks.ones(model, job.mask.include).items()}
    with decoding("state"):
        tensors = {**load(entry.blob(MASK)), **load(entry.blob(STATE))}
        state, mask = ticket.unpack(tensors, shapes)
    if shapes_and_types(state) != shapes_and_types(state_of(model)):
        raise CorruptEntryError("state: its weights and buffers are another network's")
    return state, mask


class Archive:
    """A store's trainings, rewind points and measures; a corrupt entry counts as missing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._logged: set[str] = set()
        """Messages logged so far: a corrupt entry is read often before it is replaced."""
        self._stored_speeds: set[str] = set()
        """Keys of the speeds that this process has stored."""

    def entry(self, kind: str, digest: str) -> Entry | None:
        """The entry; None where it is missing or corrupt."""
        try:
            entry = self._store.get(kind, digest)
            if entry and kind == "measures":
                with decoding(f"{kind}/{digest}"):
                    check(entry.meta, dict[str, float | None])
            return entry
        except CorruptEntryError as error:
            self._warn(str(error))
            return None

    def training(self, job: Job) -> Training | None:
        """The job's training; None where it is missing or corrupt."""
        entry = self.entry("trainings", job.digest)
        try:
            return Training.from_json(entry.meta) if entry else None
        except CorruptEntryError as error:
            self._warn(f"trainings/{job.digest}: {error}")
            return None

    def state(self, job: Job, model: nn.Module) -> tuple[State, Mask] | None:
        """Final state and mask of a job, in the shapes of ``model``; None where both are missing.

        They are read from the job's rewind point or training, the first that is not corrupt.
        """
        for kind in ("points", "trainings"):
            entry = self.entry(kind, job.digest)
            try:
                if entry:
                    return from_blobs(entry, job, model)
            except (CorruptEntryError, TicketFileError) as error:
                self._warn(f"{kind}/{job.digest}: {error}")
        return None

    def missing_points(self, job: Job, steps: Sequence[int]) -> list[int]:
        """Those of the steps at which a job has no rewind point."""
        return [k for k in steps if self.entry("points", ended_at(job, k).digest) is None]

    def put_points(self, job: Job, points: Mapping[int, State], mask: Mask) -> None:
        """Store rewind points of a job, by step: states in the model's shapes, under one mask."""
        for step, state in points.items():
            self.put_point(ended_at(job, step), state, mask, job.digest)

    def put_point(self, ended: Job, state: State, mask: Mask, training: str | None) -> None:
        """Store a rewind point.

        Args:
            ended: the job up to the rewind point, from `ended_at`.
            state, mask: as in `to_blobs`.
            training: digest of the training that passed the point.
        """
        meta = {"step": ended.last, "of": training}
        self._store.put("points", ended.digest, meta, to_blobs(state, mask))

    def put_ticket(self, given: Ticket) -> None:
        """Store a ticket that was found elsewhere, unless it is there."""
        key = GivenTicket(content=given.digest).digest
        if self.entry("tickets", key) is None:
            shapes = {name: list(m.shape) for name, m in given.mask.items()}
            meta = {"ticket_digest": given.digest, "shapes": shapes}
            self._store.put("tickets", key, meta, to_blobs(given.start, given.mask))

    def ticket(self, key: str) -> tuple[Mask, State]:
        """Mask and weights of a ticket that was found elsewhere.

        Raises:
            StoreError: it is missing or corrupt.
        """
        try:
            if entry := self.entry("tickets", key):
                with decoding(f"tickets/{key}"):
                    tensors = {**load(entry.blob(MASK)), **load(entry.blob(STATE))}
                    state, mask = ticket.unpack(tensors, entry.meta["shapes"])
                return mask, state
        except (CorruptEntryError, TicketFileError) as error:
            self._warn(str(error))
        raise StoreError(f"the store has lost tickets/{key}, the ticket to start from")

    @contextmanager
    def latency(
        self, key: str, make: Callable[[dict[str, float]], ChannelLatency], frozen: bool
    ) -> Iterator[ChannelLatency]:
        """Latencies by which a mask is found, measured in the block where the store lacks them.

        The first process that needs them measures, others wait; they are stored when the block
        ends. So a mask that depends on them is found once, though measurements vary.

        Args:
            make: makes a latency from the known ones.
            frozen: whether missing ones are a StoreError.
        """

        def stored() -> dict[str, float] | None:
            entry = self.entry("measures", key)
            return entry.meta if entry else None

        known = stored()
        if known is None:
            if frozen:
                lost = f"measures/{key}, the latencies by which a mask was found"
                raise StoreError(f"the store has lost {lost}")
            with claimed(self._store.files, key, lambda: stored() is not None) as acquired:
                if acquired:
                    latency = make({})
                    yield latency
                    self._store.put("measures", key, latency.known)
                    return
            known = stored()
        yield make({**(known or {})})

    def put_speed(self, job: Job, seconds: float, device: torch.device) -> None:
        """Store seconds per step, once for all jobs of one speed; plans estimate durations from it.

        Args:
            seconds: duration of the job's training.
        """
        if job.last > job.first and (key := speed_key(job, device)) not in self._stored_speeds:
            self._stored_speeds.add(key)
            store_speed(self._store, job, seconds / (job.last - job.first), device)

    def _warn(self, corrupt: str) -> None:
        if corrupt not in self._logged:
            logger.warning("store: %s; it is computed again", corrupt)
            self._logged.add(corrupt)


def ended_at(job: Job, step: int) -> Job:
    """The job ended at a step; its digest names the rewind point's entry."""
    return replace(job, last=step, keep=())


def cached(cache: OrderedDict[str, T], key: str, make: Callable[[], T], size: int = 16) -> T:
    """The cached value, made if missing; beyond ``size``, the least recently used is dropped."""
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    while len(cache) > size:
        cache.popitem(last=False)
    return cache[key]
