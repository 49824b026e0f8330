"""Training of jobs to their last steps, with checkpoints from which an interrupted one resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from lth_core.errors import DivergedError, PreemptedError
from lth_core.jobs.recipes import Job
from lth_core.store import Store
from lth_core.train.archive import Archive
from lth_core.train.builder import PreparedJob
from lth_core.train.checkpoint import delete_checkpoint, load_checkpoint, store_checkpoint
from lth_core.train.layers.linear import LinearChoice
from lth_core.train.layers.sparsify import sparsified
from lth_core.train.loop import Outcome, Run, Task
from lth_core.train.pack.forward import Way
from lth_core.train.pack.pack import Pack
from lth_core.train.precision import threads_for


class Runner:
    """Trains prepared jobs, alone or as a pack.

    Args:
        every: seconds between checkpoints.
        is_ending: asked after each step; once true, running trainings store checkpoints and raise
            PreemptedError.
        compiled: as in `Stack`.
    """

    def __init__(
        self,
        store: Store,
        archive: Archive,
        every: float,
        is_ending: Callable[[], bool],
        compiled: bool,
    ) -> None:
        self._compiled = compiled
        self._store, self._archive, self._every, self._is_ending = store, archive, every, is_ending
        self._linear_choice = LinearChoice(store)
        self._interrupted = set[str]()
        """Digests of trainings that have, or had, a checkpoint in the store."""

    def outcomes(
        self, jobs: Sequence[PreparedJob], way: Way = Way.STACKED
    ) -> list[Outcome | DivergedError]:
        """Outcome of each job, trained from its start or from its checkpoint.

        On a CPU small networks are trained by one of torch's threads.

        Raises:
            PreemptedError: the training was interrupted; checkpoints are stored.
        """
        task = jobs[0].task
        with threads_for(task.model, task.data.shape, task.spec.batch_size):
            return self._outcomes(jobs, way)

    def _outcomes(self, jobs: Sequence[PreparedJob], way: Way) -> list[Outcome | DivergedError]:
        if len(jobs) == 1:
            jobs = [self._with_faster_layers(jobs[0])]
        runs = [self._resumed(prepared) for prepared in jobs]
        pack = Pack(runs, way, self._compiled)
        stored_at = time.monotonic()
        for _ in pack:
            ending = self._is_ending()
            if not (ending or time.monotonic() - stored_at > self._every):
                continue
            running = [
                (prepared.job, run)
                for position, (prepared, run) in enumerate(zip(jobs, runs, strict=True))
                if run.task.first < run.done < run.task.last and position not in pack.errors
            ]
            for job, run in running:
                self._store_checkpoint(job, run)
            stored_at = time.monotonic()
            if ending and running:
                job, run = running[0]
                raise PreemptedError(
                    f"interrupted; training {job.digest[:12]} is stored at step {run.done}"
                )
        return [
            pack.errors.get(position) or prepared.whole(run.outcome())
            for position, (prepared, run) in enumerate(zip(jobs, runs, strict=True))
        ]

    def _with_faster_layers(self, prepared: PreparedJob) -> PreparedJob:
        """A job that is trained alone, with the layers that a CPU computes faster otherwise."""
        sparse = None if prepared.smaller else sparsified(prepared.task)
        if sparse:
            prepared = replace(prepared, task=sparse.task, smaller=sparse)
        return replace(prepared, task=self.with_linears(prepared.task))

    def with_linears(self, task: Task) -> Task:
        """The task, whose linear layers oneDNN computes where they gain by it, in place."""
        if task.spec.precision != "bf16":
            self._linear_choice.apply(task.model, task.spec.batch_size)
        return task

    def delete_checkpoint(self, job: Job) -> None:
        """Delete the checkpoint of a finished job."""
        if job.digest in self._interrupted:
            delete_checkpoint(self._store, job)

    def _resumed(self, prepared: PreparedJob) -> Run:
        """The run of a job, from its checkpoint if it has one."""
        job, run = prepared.job, Run(prepared.task)
        if checkpoint := load_checkpoint(self._store, job):
            self._interrupted.add(job.digest)
            passed = [step for step in prepared.task.keep if step < checkpoint.step]
            # The interrupted training may have stored fewer rewind points than are needed now.
            if run.fits(checkpoint) and not self._archive.missing_points(job, passed):
                run.restore(checkpoint)
        return run

    def _store_checkpoint(self, job: Job, run: Run) -> None:
        self._archive.put_points(job, run.points, run.task.masking.mask)
        run.points.clear()
        store_checkpoint(self._store, job, run.checkpoint())
        self._interrupted.add(job.digest)
