"""The engine: jobs -> results, remembered by a store."""

from __future__ import annotations

import copy
import logging
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from lth_core import data, masks, models, ticket
from lth_core.data import Dataset
from lth_core.errors import CorruptEntryError, StoreError, TicketFileError
from lth_core.jobs import Job, MaskRecipe
from lth_core.masks import Mask, State
from lth_core.measures import layers_of
from lth_core.seeds import generator
from lth_core.spec import ModelSpec, TicketSpec, describe, sha256
from lth_core.store import Entry, Store
from lth_core.ticket import Ticket
from lth_core.train.loop import Outcome, Task, run
from lth_core.train.order import Order
from lth_core.training import Layer, Result, Training

logger = logging.getLogger("lth")

STATE = "state.safetensors"
T = TypeVar("T")


class Trainer:
    """Trains jobs that the store does not know, and makes whatever a recipe names.

    Everything a job needs (its parent's weights, its mask) is taken from the last jobs, else from
    the store, else made again from its recipe; a corrupt entry is reported and made again.

    Args:
        store: remembers results; by default this process's memory.
        device: by default the GPU where there is one.
        frozen: never train; what the store lacks is a StoreError.
    """

    def __init__(
        self, store: Store | None = None, device: str | None = None, *, frozen: bool = False
    ) -> None:
        self.store = store or Store()
        self.frozen = frozen
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._finals: OrderedDict[str, tuple[State, Mask]] = OrderedDict()
        self._masks: OrderedDict[str, Mask] = OrderedDict()

    def __call__(self, jobs: Sequence[Job]) -> list[Result]:
        """The results of the jobs, in their order; what the store knows is not trained again."""
        return [self._result(job) for job in jobs]

    def _result(self, job: Job) -> Result:
        entry = self._entry("trainings", job.digest)
        if entry is None:
            return Result(job, self._train(job)[0], reused=False)
        lost = [k for k in job.keep if self._entry("points", _point(job, k).digest) is None]
        if lost:
            self._keep_points(job, self._run(replace(job, last=max(lost), keep=tuple(lost))))
        return Result(job, Training.from_json(entry.meta), reused=True)

    def known(self, job: Job) -> bool:
        """Whether the store has the job and its rewind points."""
        return self.store.has("trainings", job.digest) and all(
            self.store.has("points", _point(job, k).digest) for k in job.keep
        )

    # What recipes ask for

    def model(self, job: Job) -> nn.Module:
        """The job's network; only its structure is meant, its weights are of no seed."""
        return template(job.model, self._data(job).shape, self._data(job).classes)

    def start(self, job: Job) -> State:
        """The weights and buffers a job starts from, before its mask."""
        if isinstance(job.start, Job):
            return self.final(job.start)[0]
        dataset, drawn = self._data(job), generator(job.start.seed, *job.start.draw)
        model = models.build(job.model, dataset.shape, dataset.classes, drawn)
        return {name: value.clone() for name, value in model.state_dict().items()}

    def mask(self, recipe: MaskRecipe, job: Job) -> Mask:
        """The mask a recipe gives for the job's network."""
        # The network is part of the key, for `Full` is the same recipe for all of them.
        key = sha256([recipe.digest, describe(job.model), describe(job.data)])
        return _recent(self._masks, key, lambda: recipe.make(self, job))

    def final(self, job: Job) -> tuple[State, Mask]:
        """Weights and buffers after a job's last step, and its mask."""

        def make() -> tuple[State, Mask]:
            stored = self._stored_state("points", job) or self._stored_state("trainings", job)
            if stored:
                return stored
            state, mask = self._train(job)[1]
            if self._entry("points", job.digest):  # its manifest is sound, its weights were not
                self._keep_point(job, state, mask)
            return state, mask

        return _recent(self._finals, job.digest, make)

    def ticket(self, spec: TicketSpec, level: int, branch: str, job: Job) -> Ticket:
        """The subnetwork that a job trains, as it starts."""
        mask = self.mask(job.mask, job)
        return Ticket(
            spec=spec, level=level, branch=branch, rewind_step=job.first, mask=mask,
            start=masks.masked(self.start(job), mask),
            example_shape=self._data(job).shape, classes=self._data(job).classes,
        )  # fmt: skip

    # Training and remembering

    def _train(self, job: Job) -> tuple[Training, tuple[State, Mask]]:
        mask, start = self.mask(job.mask, job), self.start(job)
        outcome = self._run(job, mask, start)
        begun = masks.masked(start, mask)
        like = self.mask(job.mask.like, job) if job.mask.like else mask
        counts = layers_of(self.model(job), self._data(job).shape)
        training = Training(
            curves=outcome.curves,
            layers={
                name: Layer(weights=weights, positions=positions,
                            kept=int(mask[masks.parameter_of(name)].sum()))
                for name, (weights, positions) in counts.items()
            },
            parameters=sum(p.numel() for p in self.model(job).parameters()),
            mask_digest=masks.digest(mask),
            mask_overlap=masks.overlap(mask, like),
            ticket_digest=ticket.digest(mask, begun),
            seconds=outcome.seconds,
            finished_at=time.time(),
            made_with=made_with(self.device),
        )  # fmt: skip
        self._keep_points(job, outcome)
        self.store.put("trainings", job.digest, training.to_json(),
                       {STATE: _to_bytes(outcome.state, mask)})  # fmt: skip
        final = _recent(self._finals, job.digest, lambda: (outcome.state, mask))
        return training, final

    def _run(self, job: Job, mask: Mask | None = None, start: State | None = None) -> Outcome:
        if self.frozen:
            raise StoreError(f"the store has lost training {job.digest}; sweep again to remake it")
        mask = self.mask(job.mask, job) if mask is None else mask
        start = self.start(job) if start is None else start
        dataset = self._data(job)
        model = copy.deepcopy(self.model(job))
        model.load_state_dict(masks.masked(start, mask))
        model.to(self.device).train()
        if len(dataset.shape) == 3:
            model.to(memory_format=torch.channels_last)
        order = Order(
            examples=len(dataset.train), batch_size=job.train.batch_size, seed=job.seed,
            level=0 if job.train.replay_order else job.level, augment=job.data.augment,
        )  # fmt: skip
        return run(
            Task(model=model, mask=mask, data=dataset, spec=job.train, order=order,
                 first=job.first, last=job.last, keep=job.keep)
        )  # fmt: skip

    def _keep_points(self, job: Job, outcome: Outcome) -> None:
        for step, state in outcome.points.items():
            self._keep_point(_point(job, step), state, self.mask(job.mask, job))

    def _keep_point(self, point: Job, state: State, mask: Mask) -> None:
        self.store.put(
            "points", point.digest, {"step": point.last}, {STATE: _to_bytes(state, mask)}
        )

    def _stored_state(self, kind: str, job: Job) -> tuple[State, Mask] | None:
        entry = self._entry(kind, job.digest)
        if entry is None:
            return None
        try:
            return _from_bytes(entry.blob(STATE), self.model(job))
        except (CorruptEntryError, TicketFileError, SafetensorError) as error:
            logger.warning("%s; it is made again", error)
            return None

    def _entry(self, kind: str, digest: str) -> Entry | None:
        try:
            return self.store.get(kind, digest)
        except CorruptEntryError as error:
            logger.warning("store: %s; it is made again", error)
            return None

    def _data(self, job: Job) -> Dataset:
        return data.load(job.data, self.device)


@lru_cache(maxsize=8)
def template(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network for its structure alone: names, shapes, layers."""
    return models.build(spec, shape, classes, generator(0, "template"))


def made_with(device: torch.device) -> dict[str, str]:
    """Versions and device, as a result remembers them."""
    on_gpu = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def _point(job: Job, step: int) -> Job:
    """The job stopped at a step: what a rewind point's entry is named by."""
    return replace(job, last=step, keep=())


def _to_bytes(state: State, mask: Mask) -> bytes:
    return save(ticket.pack(state, mask))


def _from_bytes(content: bytes, model: nn.Module) -> tuple[State, Mask]:
    shapes = {name: list(m.shape) for name, m in masks.ones(model).items()}
    return ticket.unpack(load(content), shapes)


def _recent(cache: OrderedDict[str, T], key: str, make: Callable[[], T], size: int = 8) -> T:
    """The cached value, or the one just made; the least recently used goes."""
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    while len(cache) > size:
        cache.popitem(last=False)
    return cache[key]
