"""Runs that leave a pack: interrupted, diverged, or another process's."""

import time
from dataclasses import replace
from itertools import chain

import pytest
from double import Double
from pack_jobs import TICKETS, by_level, dense_of, searches
from toys import After, jobs_of

from lth_core import PruneSpec, Trainer
from lth_core.errors import DivergedError, PreemptedError
from lth_core.jobs.recipes import Job
from lth_core.spec.prune import Grow
from lth_core.store import Store
from lth_core.store.locks import claimed
from lth_core.train.loop import Run
from lth_core.train.pack.pack import Pack


@pytest.mark.slow
def test_interrupted_pack_resumes_to_the_same_results() -> None:
    specs = searches((0, 1), (0, 5), **TICKETS)
    whole, store = Trainer(pack=99), Store()
    expected = [[r.training.curves for r in whole(jobs)] for jobs in by_level(specs)]
    times, found = 0, []
    for steps in (3, 7, 2, 9, 1, 10**9):
        trainer = Trainer(store, "cpu", pack=99)
        trainer.ending = After(steps)  # type: ignore[assignment]
        try:
            found = [[r.training.curves for r in trainer(jobs)] for jobs in by_level(specs)]
            break
        except PreemptedError:
            times += 1
            assert store.digests("checkpoints")
    assert times >= 3
    for one, other in zip(chain(*found), chain(*expected), strict=True):
        assert one.step == other.step
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
    assert not store.digests("checkpoints")


def dense_jobs(count: int) -> list[Job]:
    """Dense runs of some seeds by SGD; the second one diverges at its first evaluation, step 4."""
    jobs = [dense_of(spec) for spec in searches(range(count), (0,), **TICKETS)]
    rates = [1e30 if number == 1 else 2e-3 for number in range(count)]
    return [
        replace(job, train=replace(job.train, optimizer="sgd", lr=rate))
        for job, rate in zip(jobs, rates, strict=True)
    ]


@pytest.mark.parametrize("count", [2, 3])
def test_a_run_that_diverges_leaves_its_pack(count: int) -> None:
    jobs = dense_jobs(count)
    alone, packed = Trainer(pack=1), Trainer(pack=count)
    packed.train_ahead(jobs)
    with pytest.raises(DivergedError, match="not finite at step 4"):
        packed([jobs[1]])
    (error,) = packed._diverged.values()
    assert error.__context__ is None  # the error in the pack, whose traceback holds the pack
    for job in jobs[::2]:
        assert packed.known(job)
        (one,), (other,) = packed([job]), alone([job])
        assert not one.reused
        expected = other.training.curves.validation_loss
        assert one.training.curves.validation_loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("grow", ["none", "random", "gradient"])
def test_a_run_whose_mask_finds_no_finite_scores_leaves_its_pack(grow: Grow) -> None:
    prune = PruneSpec(when="during", fraction=0.7, every="2it", grow=grow)
    fields = {**TICKETS, "prune": prune, "levels": 1}
    jobs = [jobs_of(spec)[-1]["ticket"] for spec in searches(range(3), (0,), **fields)]
    rates = [2e-3, 1e30, 2e-3]
    jobs = [
        replace(job, train=replace(job.train, optimizer="sgd", lr=rate, evaluate_every="12it"))
        for job, rate in zip(jobs, rates, strict=True)
    ]
    trainer = Trainer(pack=3)
    trainer.train_ahead(jobs)
    assert [trainer.known(job) for job in jobs] == [True, False, True]
    with pytest.raises(DivergedError, match="scores by magnitude are NaN"):
        trainer([jobs[1]])
    for one, other in zip(trainer(jobs[::2]), Trainer(pack=1)(jobs[::2]), strict=True):
        expected = other.training.curves.validation_loss
        assert one.training.curves.validation_loss == pytest.approx(expected, rel=1e-4)


def test_a_run_that_diverged_has_no_checkpoint_and_diverges_again_at_the_same_step() -> None:
    store, jobs = Store(), dense_jobs(3)
    trainer = Trainer(store, "cpu", pack=3)
    trainer.ending = After(8)  # type: ignore[assignment]
    with pytest.raises(PreemptedError):
        trainer.train_ahead(jobs)
    assert set(store.digests("checkpoints")) == {jobs[0].digest, jobs[2].digest}
    with pytest.raises(DivergedError, match="not finite at step 4"):
        Trainer(store, "cpu", pack=3)(jobs)


def test_a_job_that_another_process_trains_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [dense_of(spec) for spec in searches((0, 1, 2), (0,), **TICKETS)]
    trainer = Trainer(pack=3)
    with claimed(trainer.store.files, jobs[1].digest, lambda: False):
        trainer.train_ahead(jobs)
    assert [trainer.known(job) for job in jobs] == [True, False, True]
    assert [result.reused for result in trainer(jobs)] == [False] * 3


def test_a_pack_of_which_another_process_trains_all_is_left_to_it() -> None:
    jobs = [dense_of(spec) for spec in searches((0, 1), (0,), **TICKETS)]
    trainer = Trainer(pack=2)
    files = trainer.store.files
    with claimed(files, jobs[0].digest, bool), claimed(files, jobs[1].digest, bool):
        trainer.train_ahead(jobs)
    assert [trainer.known(job) for job in jobs] == [False, False]


def test_a_run_that_was_interrupted_after_its_last_step_gets_its_last_rewind_point() -> None:
    """As where its rewind point at the step of its checkpoint is all that is missing."""
    jobs = [replace(dense_of(spec), keep=(12,)) for spec in searches((0, 1), (0,), **TICKETS)]
    trainer = Trainer(device="cpu")
    ended, resumed, other = (Run(trainer._prepare(job).task) for job in (jobs[0], *jobs))
    list(ended)
    resumed.restore(ended.checkpoint())
    for _ in Pack([resumed, other]):
        pass
    assert resumed.outcome().points.keys() == other.outcome().points.keys() == {12}


def test_members_share_the_time_of_their_pack() -> None:
    specs = searches((0, 1), (5,), **TICKETS)
    trainer, started = Double(pack=9), time.perf_counter()
    dense = [dense_of(spec) for spec in specs]
    still = [replace(job, first=12) for job in dense]
    trainer.train_ahead([*dense, *still])
    seconds = [outcome.seconds for outcome in trainer.ended.values()]
    assert len(seconds) == 4
    assert min(seconds) > 0
    assert sum(seconds) <= time.perf_counter() - started


def test_jobs_that_gain_nothing_by_packs_are_not_looked_up_in_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that each level costs a store in S3 no more calls than without packs."""
    jobs, trainer = dense_jobs(3), Trainer()

    def fail(job: Job) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(trainer._archive, "training", fail)
    trainer.train_ahead(jobs)
    monkeypatch.setattr(trainer, "pack", 3)
    with pytest.raises(AssertionError, match="looked up"):
        trainer.train_ahead(jobs)
