"""The engine: jobs -> results, remembered by a store."""

from __future__ import annotations

import copy
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

import torch
from safetensors import SafetensorError
from torch import nn

from lth_core import data, masks, models, ticket
from lth_core.data import Dataset
from lth_core.errors import CorruptEntryError, StoreError, TicketFileError
from lth_core.jobs import Init, Job, MaskRecipe, Measure
from lth_core.masks import Mask, State
from lth_core.measures import (
    chance_overlap,
    layers_of,
    sign_agreement,
    travel,
    travel_by_mask,
)
from lth_core.prune.candidate import Batch, Candidate
from lth_core.seeds import generator
from lth_core.spec import TicketSpec, TrainSpec, describe, sha256
from lth_core.store import Entry, Store
from lth_core.ticket import Ticket
from lth_core.train.gradual import Gradual
from lth_core.train.keeping import from_blobs, made_with, recent, template, to_blobs
from lth_core.train.learned import Learned
from lth_core.train.loop import Outcome, Task, run
from lth_core.train.masking import Fixed, Masking
from lth_core.train.order import Order
from lth_core.training import Layer, Result, Training

logger = logging.getLogger("lth")


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
        return template(job.model, self.data(job).shape, self.data(job).classes)

    def start(self, job: Job) -> State:
        """The weights and buffers a job starts from, before its mask."""
        return job.start.make(self, job)

    def drawn(self, init: Init, job: Job) -> State:
        """The weights and buffers of the job's network, freshly drawn."""
        dataset, draw = self.data(job), generator(init.seed, *init.draw)
        model = models.build(job.model, dataset.shape, dataset.classes, draw)
        return {name: value.clone() for name, value in model.state_dict().items()}

    def candidate(
        self, state: State, mask: Mask, initial: State, job: Job, examples: int
    ) -> Candidate:
        """A state of the job's network, for a score."""
        dataset = self.data(job)

        def batch() -> Batch:
            split = dataset.train.of_each_class(examples, generator(job.seed, "mask", "examples"))
            return dataset.normalize(split.x), split.y

        return Candidate(
            weights=masks.masked({name: state[name] for name in mask}, mask),
            mask=mask, initial={name: initial[name] for name in mask},
            copy=lambda: self.network(job, state), batch=batch, seed=job.seed,
        )  # fmt: skip

    def mask(self, recipe: MaskRecipe, job: Job) -> Mask:
        """The mask a recipe gives for the job's network."""
        # The network is part of the key, for `Full` is the same recipe for all of them.
        key = sha256([recipe.digest, describe(job.model), describe(job.data)])
        return recent(self._masks, key, lambda: recipe.make(self, job))

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

        return recent(self._finals, job.digest, make)

    def mask_of(self, job: Job) -> Mask:
        """The mask of a job's result: its own, or the one that it finds."""
        return self.final(job)[1] if job.finds else self.mask(job.mask, job)

    def measured(self, measure: Measure) -> dict[str, float | None]:
        """A measure's numbers, remembered."""
        entry = self._entry("measures", measure.digest)
        if entry is None:
            taken = {
                name: None if value is None or not isfinite(value) else value
                for name, value in measure.take(self).items()
            }
            self.store.put("measures", measure.digest, taken)
            return taken
        return entry.meta

    def ticket(self, spec: TicketSpec, level: int, branch: str, job: Job) -> Ticket:
        """The subnetwork that a job trains or finds, with the weights to start from."""
        mask = self.mask_of(job)
        return Ticket(
            spec=spec, level=level, branch=branch, rewind_step=job.first, mask=mask,
            start=masks.masked(self.start(job), mask),
            example_shape=self.data(job).shape, classes=self.data(job).classes,
        )  # fmt: skip

    # Training and remembering

    def _train(self, job: Job) -> tuple[Training, tuple[State, Mask]]:
        start = self.start(job)
        outcome = self._run(job, start)
        mask, state = outcome.mask, outcome.state
        begun = masks.masked(start, mask)
        like = self.mask(job.mask.like, job) if job.mask.like else mask
        final = recent(self._finals, job.digest, lambda: (state, mask))
        counts = layers_of(self.model(job), self.data(job).shape)
        training = Training(
            curves=outcome.curves,
            layers={
                name: Layer(shape=shape, positions=positions,
                            kept=int(mask[masks.parameter_of(name)].sum()))
                for name, (shape, positions) in counts.items()
            },
            parameters=sum(p.numel() for p in self.model(job).parameters()),
            mask_digest=masks.digest(mask),
            mask_overlap=masks.overlap(mask, like),
            mask_overlap_chance=chance_overlap(masks.counts(mask, like)),
            travel=travel(begun, state, mask),
            sign_agreement=sign_agreement(begun, state, mask),
            **self._dense_travel(job, mask, begun, state),
            ticket_digest=ticket.digest(mask, begun),
            seconds=outcome.seconds,
            finished_at=time.time(),
            made_with=made_with(self.device),
        )  # fmt: skip
        self._keep_points(job, outcome)
        self.store.put("trainings", job.digest, training.to_json(), to_blobs(state, mask))
        return training, final

    def _dense_travel(
        self, job: Job, mask: Mask, begun: State, state: State
    ) -> dict[str, float | None]:
        """How far the dense run took the weights that the mask keeps, and those that it prunes."""
        if job.dense is None:
            inside, outside = travel(begun, state, mask), None
        else:
            from_, to = self.start(job.dense), self.final(job.dense)[0]
            inside, outside = travel_by_mask(from_, to, mask)
        return {"travel_inside": inside, "travel_outside": outside}

    def _run(self, job: Job, start: State | None = None) -> Outcome:
        if self.frozen:
            raise StoreError(f"the store has lost training {job.digest}; sweep again to remake it")
        mask = self.mask(job.mask, job)
        start = self.start(job) if start is None else start
        dataset = self.data(job)
        model = self.network(job, masks.masked(start, mask))
        order = Order(
            examples=len(dataset.train), batch_size=job.train.batch_size, seed=job.seed,
            run=job.run, augment=job.data.augment,
        )  # fmt: skip
        models.restart_dropout(model, order.seed, order.run, job.first)
        return run(
            Task(model=model, masking=self._masking(job, model, mask, start), data=dataset,
                 spec=_mask_train(job), order=order, first=job.first, last=job.last,
                 keep=job.keep)
        )  # fmt: skip

    def network(self, job: Job, state: State) -> nn.Module:
        """The job's network with a state, on the device, in training mode."""
        model = copy.deepcopy(self.model(job))
        model.load_state_dict(state)
        model.to(self.device).train()
        if len(self.data(job).shape) == 3:
            model.to(memory_format=torch.channels_last)
        return model

    def _masking(self, job: Job, model: nn.Module, mask: Mask, start: State) -> Masking:
        """How the job keeps its mask."""
        if job.finds is None:
            return Fixed(model, mask)
        if job.finds.when == "never":
            return Learned(model, mask, job.finds, job.seed, job.level)
        initial = {name: start[name] for name in mask}
        batch = self.candidate(start, mask, start, job, job.finds.examples).batch
        return Gradual(model, mask, job.finds, initial, batch, job.seed, job.level)

    def _keep_points(self, job: Job, outcome: Outcome) -> None:
        for step, state in outcome.points.items():
            self._keep_point(_point(job, step), state, outcome.mask)

    def _keep_point(self, point: Job, state: State, mask: Mask) -> None:
        self.store.put("points", point.digest, {"step": point.last}, to_blobs(state, mask))

    def _stored_state(self, kind: str, job: Job) -> tuple[State, Mask] | None:
        entry = self._entry(kind, job.digest)
        if entry is None:
            return None
        try:
            return from_blobs(entry, self.model(job))
        except (CorruptEntryError, TicketFileError, SafetensorError) as error:
            logger.warning("%s; it is made again", error)
            return None

    def _entry(self, kind: str, digest: str) -> Entry | None:
        try:
            return self.store.get(kind, digest)
        except CorruptEntryError as error:
            logger.warning("store: %s; it is made again", error)
            return None

    def data(self, job: Job) -> Dataset:
        return data.load(job.data, self.device)


def _point(job: Job, step: int) -> Job:
    """The job stopped at a step: what a rewind point's entry is named by."""
    return replace(job, last=step, keep=())


def _mask_train(job: Job) -> TrainSpec:
    """How the job's optimizer steps: a learned mask may have a rate of its own."""
    if job.finds and job.finds.lr:
        return replace(job.train, lr=job.finds.lr)
    return job.train
