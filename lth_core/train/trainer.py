"""The trainer: results of jobs, each trained once and then read from a store."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Literal

from lth_core.errors import DivergedError, StoreError
from lth_core.jobs.controls import FreshlyNarrow, WithStatistics
from lth_core.jobs.recipes import Init, Job, MaskRecipe, Measure, Recipe
from lth_core.masks import Mask, State
from lth_core.models.latency import ChannelLatency
from lth_core.seeds import seeded_draws
from lth_core.spec import PruneNever, TicketSpec, describe, sha256
from lth_core.spec.fields import check_pack, steps_in
from lth_core.store import Store, open_store
from lth_core.store.locks import claimed
from lth_core.ticket import Ticket
from lth_core.train.archive import Archive, cached, to_blobs
from lth_core.train.batches import examples_seen
from lth_core.train.builder import Builder, PreparedJob, device_of, may_be_narrow
from lth_core.train.checkpoint import CHECKPOINT_EVERY
from lth_core.train.loop import Outcome
from lth_core.train.pack.forward import Way
from lth_core.train.pack.rules import inputs, needed, packs, run_of
from lth_core.train.pack.runner import Runner
from lth_core.train.pack.size import PackSizes, steps_of
from lth_core.train.precision import arithmetic
from lth_core.train.probe import step_seconds
from lth_core.train.training import Result, Training

logger = logging.getLogger("lth")


class Trainer(Builder):
    """Trains the jobs that the store lacks, and computes recipes.

    The weights and masks that a job needs come from a cache of the last jobs, else from the store,
    else from training their recipe again. A corrupt entry is logged and replaced. On a CPU small
    networks are trained by one of torch's threads (`precision.threads_for`).

    Args:
        store: the store of results, or its place; by default this process's memory.
        device: by default the GPU where there is one.
        frozen: never train; a result that the store lacks is a StoreError.
        checkpoint_every: seconds between checkpoints, from which an interrupted training resumes; a
            shorter training has none.
        pack: largest number of jobs that are trained as one program; ``auto``: the number that
            this device trains fastest.
        compiled: compile the steps of packs, and on a GPU of single jobs, by `torch.compile`. The
            time that this takes is part of the trainings' seconds.

    Raises:
        SpecError: `store`, `device` or `pack` is wrong.
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str] | None = None,
        device: str | None = None,
        *,
        frozen: bool = False,
        checkpoint_every: float = CHECKPOINT_EVERY,
        pack: int | Literal["auto"] = "auto",
        compiled: bool = False,
    ) -> None:
        check_pack("pack", pack)
        super().__init__(device_of(device))
        self.store = store if isinstance(store, Store) else open_store(store)
        self._archive = Archive(self.store)
        self.frozen, self.pack, self.compiled = frozen, pack, compiled
        self.ending = threading.Event()
        """Once set, the running training stores a checkpoint and raises PreemptedError."""
        self._runner = Runner(
            self.store, self._archive, checkpoint_every, lambda: self.ending.is_set(), compiled
        )
        self._pack_sizes = PackSizes(
            self.store,
            self.device,
            lambda job: self._with_task(job).task,
            self._runner.with_linears,
        )
        self._trained_ahead = set[str]()
        """Digests of trainings made by `train_ahead` whose results were not yet asked for."""
        self._stored_runs = set[str]()
        """`run_of` the trainings that this trainer has found in the store, or put there."""
        self._diverged: dict[str, DivergedError] = {}
        """Errors of trainings in packs, by digest; without tracebacks, which would keep packs."""
        self._finals: OrderedDict[str, tuple[State, Mask]] = OrderedDict()
        self._masks: OrderedDict[str, Mask] = OrderedDict()

    def __call__(self, jobs: Sequence[Job]) -> list[Result]:
        """Results of the jobs, in their order; those in the store are not trained again."""
        self.train_ahead(jobs)
        return [self._result(job) for job in jobs]

    def train_ahead(self, jobs: Sequence[Job], later: Sequence[Job] = ()) -> None:
        """Train in packs those of the jobs that can share a program and that the store lacks.

        The other jobs are trained when their results are asked for.

        Args:
            later: jobs of later levels, with which packs are filled up: those whose start and mask
                are made from no training, or from stored ones.
        """
        if self.pack == 1 or self.frozen or len(jobs) + len(later) < 2:
            return
        is_ready = partial(self._is_ready, jobs=jobs)
        for pack in packs(jobs, later, self._pack_size_of, is_ready, self._may_join):
            try:
                self._train_pack(pack)
            except RuntimeError as error:  # memory is short, or an operation has no rule
                text = "a pack of %d jobs failed, each is trained alone: %s"
                logger.warning(text, len(pack), error)

    def _pack_size_of(self, jobs: Sequence[Job], later: Sequence[Job]) -> int:
        """Most jobs in a pack of those of one `pack_key`; 1 where too few are not trained yet.

        Args:
            later: jobs with which a pack may be filled up.
        """
        both = [*jobs, *later]
        if len(both) < 2 or (self.pack == "auto" and not self._pack_sizes.may_gain(both)):
            return 1
        missing = [job for job in jobs if not self._is_trained(job)]
        if not missing or len(missing) + len(later) < 2:
            return 1
        return self.pack_size(missing[0], steps_of([*missing, *later]))

    def _may_join(self, job: Job) -> bool:
        """Whether all that a job's start and mask are made from is stored, and its training is not.

        Trainings that this trainer neither found in the store nor put there count as missing: to
        look up those of all later levels at each level would cost a store in S3 many calls.
        """
        return inputs(job) <= self._stored_runs and run_of(job) not in self._stored_runs

    def pack_size(self, job: Job, steps: int) -> int:
        """Most jobs of a job's `pack_key` that are trained as one program.

        Args:
            steps: number of steps that are to be trained; few are not worth a measurement.
        """
        return self._pack_sizes.fastest(job, steps) if self.pack == "auto" else self.pack

    def pack_gain(self, job: Job, steps: int, most: int) -> float:
        """Ratio of speeds: of up to ``most`` jobs like a job, and of each trained alone."""
        most = most if self.pack == "auto" else min(most, self.pack)
        return self._pack_sizes.gain(job, steps, most)

    def _way(self, jobs: Sequence[PreparedJob]) -> Way:
        """The fastest way to compute a pack, measured where several may be."""
        return self._pack_sizes.way(jobs[0].job, [each.task for each in jobs])

    def _is_ready(self, job: Job, jobs: Sequence[Job]) -> bool:
        """Whether a job is to be trained, after those of the jobs that it needs are.

        They are trained here if no pack has: each has another program, or another process trains
        it.
        """
        if self._is_trained(job):
            return False
        for each in needed(job, jobs):
            if each.digest not in self._diverged and self._is_trained(each):
                continue
            try:
                result = self._result(each)
            except DivergedError as error:
                self._diverged[each.digest] = DivergedError(str(error))
                return False
            if not result.reused:
                self._trained_ahead.add(each.digest)
        return True

    def _is_trained(self, job: Job) -> bool:
        known = job.digest in self._diverged or job.digest in self._trained_ahead
        return known or self._stored_training(job) is not None

    def _stored_training(self, job: Job) -> Training | None:
        training = self._archive.training(job)
        if training:
            self._stored_runs.add(run_of(job))
        return training

    def _result(self, job: Job) -> Result:
        if error := self._diverged.get(job.digest):
            raise error
        training = self._stored_training(job)
        if training and not self._archive.missing_points(job, job.keep):
            reused = job.digest not in self._trained_ahead
            self._trained_ahead.discard(job.digest)
            return Result(job, training, reused)
        self._refuse_if_frozen(job)
        with claimed(self.store.files, job.digest, lambda: self.known(job)) as acquired:
            if acquired:
                return self._make(job)
        return self._result(job)  # another process has trained it

    def _make(self, job: Job) -> Result:
        """Train and store a job whose training or rewind points are missing."""
        training = self._archive.training(job)
        if training is None:
            return Result(job, self._train(job)[0], reused=False)
        if missing := self._archive.missing_points(job, job.keep):
            outcome = self._outcome(self._prepare(job, missing))
            self._archive.put_points(job, outcome.points, outcome.mask)
            self._runner.delete_checkpoint(job)
        return Result(job, training, reused=True)

    def known(self, job: Job) -> bool:
        """Whether the store has a readable training of the job and all its rewind points."""
        has_training = self._archive.training(job) is not None
        return has_training and not self._archive.missing_points(job, job.keep)

    # The interface for recipes: `lth_core.jobs.recipes.Context`

    def start(self, job: Job) -> State:
        """Weights and buffers that a job starts from, before its mask, in its network's shapes."""
        return job.start.make(self, job)

    def mask(self, recipe: MaskRecipe, job: Job) -> Mask:
        """The mask of a recipe for the job's network, (out, in, ...) bool of each layer."""
        # The network is part of the key, because `Full` is one recipe for all networks.
        key = sha256([recipe.digest, describe(job.model), describe(job.data)])

        def make() -> Mask:
            # A GPU's default for convolutions is tf32, and kernels that differ from call to call.
            with arithmetic("fp32", self.device):
                return recipe.make(self, job)

        return cached(self._masks, key, make)

    def final(self, job: Job) -> tuple[State, Mask]:
        """Weights and buffers after a job's last step, and its mask, in its network's shapes."""

        def make() -> tuple[State, Mask]:
            stored = self._archive.state(job, self.model(job))
            if stored:
                return stored
            state, mask = self._train(job)[1]
            # The point's manifest is sound, but its weights are corrupt: replace it.
            if entry := self._archive.entry("points", job.digest):
                self._archive.put_point(job, state, mask, entry.meta.get("of"))
            return state, mask

        return cached(self._finals, job.digest, make)

    def mask_of(self, job: Job) -> Mask:
        """The mask of a job's result: its own, or the one that its training finds.

        It has (out, in, ...) bool of each prunable layer, by parameter name.
        """
        return self.final(job)[1] if job.finds else self.mask(job.mask, job)

    def add_ticket(self, ticket: Ticket) -> None:
        """Store a ticket that was found elsewhere, for specs that name it as `ticket`."""
        self._archive.put_ticket(ticket)

    def given(self, ticket: Recipe) -> tuple[Mask, State]:
        """Mask and starting weights of a ticket that was found elsewhere, from the store.

        Raises:
            StoreError: the store lacks it.
        """
        return self._archive.ticket(ticket.digest)

    def measured(self, measure: Measure) -> dict[str, float | None]:
        """A measure's numbers by column; computed and stored where the store lacks any of them."""
        entry = self._archive.entry("measures", measure.digest)
        numbers = entry.meta if entry else {}
        if not numbers.keys() >= set(measure.columns):
            with seeded_draws(int(measure.digest[:15], 16)):
                values = measure.take(self)
            numbers = {
                name: None if value is None or not isfinite(value) else value
                for name, value in values.items()
            }
            self.store.put("measures", measure.digest, numbers)
        return {name: numbers[name] for name in measure.columns}

    def stored_latency(self, recipe: Recipe, job: Job) -> AbstractContextManager[ChannelLatency]:
        """Latency of the job's network without some of its channels, measured once for a recipe."""
        make = partial(self.channel_latency, job)
        return self._archive.latency(recipe.digest, make, self.frozen)

    def training_cost(self, job: Job) -> tuple[float, float]:
        """FLOPs and seconds of a job's training; a backward pass counts as two forward passes.

        Kept weights count, or all where the mask shrinks or is learned in training. A job that ends
        before its schedule does, as a rewind point's, costs a share of the whole.
        """
        whole = replace(job, last=max(job.last, steps_in(job.train.steps)))
        training = self._archive.training(job) or self([whole])[0].training
        dense = job.shrinks or isinstance(job.finds, PruneNever)
        layers = training.layers.values()
        flops = sum(layer.dense_flops if dense else layer.flops for layer in layers)
        seen = [
            examples_seen(step, job.train.batch_size, len(self.data(job).train))
            for step in (job.first, job.last)
        ]
        share = (job.last - job.first) / max(1, whole.last - whole.first)
        return 3.0 * flops * (seen[1] - seen[0]), training.seconds * share

    def ticket(self, spec: TicketSpec, level: int, branch: str, job: Job) -> Ticket:
        """Ticket of a job: the mask of its result, and its starting weights."""
        mask = self.mask_of(job)
        # The dense run, reinit and networks trained from scratch are not rewound.
        start = job.start.of if isinstance(job.start, WithStatistics) else job.start
        fresh = isinstance(start, Init | FreshlyNarrow)
        if job.model != spec.model:  # a widened network's
            spec = replace(spec, model=job.model)
        return Ticket(
            spec=spec, level=level, branch=branch, mask=mask,
            rewind_step=0 if fresh else steps_in(spec.rewind),
            start=self.masked(job, self.start(job), mask),
            example_shape=self.data(job).shape, classes=self.data(job).classes,
        )  # fmt: skip

    # Training and storing

    def _train(self, job: Job) -> tuple[Training, tuple[State, Mask]]:
        prepared = self._prepare(job)
        return self._put(prepared, self._outcome(prepared))

    def _train_pack(self, jobs: Sequence[Job]) -> None:
        """Train and store jobs as one program, but those that another process trains."""
        with ExitStack() as claims:
            prepared = [self._prepare(job) for job in jobs if self._claim(job, claims)]
            outcomes = self._runner.outcomes(prepared, self._way(prepared)) if prepared else []
            for each, outcome in zip(prepared, outcomes, strict=True):
                if isinstance(outcome, DivergedError):
                    self._diverged[each.job.digest] = DivergedError(str(outcome))
                else:
                    self._put(each, outcome, len(prepared))
                    self._trained_ahead.add(each.job.digest)

    def _claim(self, job: Job, claims: ExitStack) -> bool:
        """Whether the job's claim was acquired, until ``claims`` closes."""
        known = partial(self.known, job)
        return claims.enter_context(claimed(self.store.files, job.digest, known, wait=False))

    def _put(
        self, prepared: PreparedJob, outcome: Outcome, pack: int = 1
    ) -> tuple[Training, tuple[State, Mask]]:
        """Store a job's training, made in a pack of a number of jobs."""
        job, mask, state = prepared.job, outcome.mask, outcome.state
        final = cached(self._finals, job.digest, lambda: (state, mask))
        made_with = {"pack": str(pack)} if pack > 1 else {}
        if self.compiled and (pack > 1 or self.device.type == "cuda"):
            made_with["compiled"] = "true"
        training = self.training(prepared, outcome, made_with)
        self._stored_runs.add(run_of(job))
        self._archive.put_points(job, outcome.points, outcome.mask)
        self.store.put("trainings", job.digest, training.to_json(), to_blobs(state, mask))
        self._runner.delete_checkpoint(job)
        # A plan does not know how narrow or sparse a job's network is.
        if not may_be_narrow(job) and "sparse" not in training.made_with:
            self._archive.put_speed(job, training.seconds, self.device)
        return training, final

    def _prepare(self, job: Job, points: Sequence[int] = ()) -> PreparedJob:
        self._refuse_if_frozen(job)
        return self._with_task(job, points)

    def _with_task(self, job: Job, points: Sequence[int] = ()) -> PreparedJob:
        """A job with its task, as `Builder.prepare`."""
        mask, start = self.mask(job.mask, job), self.start(job)
        return self.prepare(job, start, mask, lambda: job.root.make(self, job), points)

    def probe(self, job: Job, seconds: float) -> float:
        """Seconds per step of a job's training, measured in about ``seconds``; nothing is stored.

        Raises:
            StoreError: this trainer is frozen, and the job starts from trained weights.
        """
        return step_seconds(self._runner.with_linears(self._with_task(job).task), seconds)

    def _outcome(self, prepared: PreparedJob) -> Outcome:
        (outcome,) = self._runner.outcomes([prepared])
        if isinstance(outcome, DivergedError):
            raise outcome
        return outcome

    def _refuse_if_frozen(self, job: Job) -> None:
        if self.frozen:
            raise StoreError(
                f"the store has lost training {job.digest}, or it was altered: remove altered "
                "entries with `lth store verify --remove`, and sweep again to train it"
            )
