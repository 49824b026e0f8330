"""Which jobs share a pack, and which wait for another."""

from dataclasses import replace

import pytest
from pack_jobs import CONTROLS, MLP, QUICK, TICKETS, by_level, dense_of, searches
from toys import jobs_of

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer
from lth_core.errors import DivergedError
from lth_core.jobs.recipes import FinalMask, Job
from lth_core.resolve import resolve
from lth_core.train.pack.rules import groups, pack_key


def test_only_jobs_of_one_program_share_a_pack() -> None:
    spec = resolve(TicketSpec(**TICKETS))
    dense = dense_of(spec)
    train = dense.train
    others = [
        replace(dense, train=replace(train, batch_size=30)),
        replace(dense, train=replace(train, optimizer="sgd")),
        replace(dense, train=replace(train, precision="bf16")),
        replace(dense, train=replace(train, evaluate_every="3it")),
        replace(dense, model=replace(dense.model, widths=(21,))),
        replace(dense, data=replace(dense.data, fraction=0.5)),
        replace(dense, first=12),
    ]
    keys = {pack_key(job) for job in (dense, *others)}
    assert len(keys) == 1 + len(others)
    assert None not in keys
    assert pack_key(replace(dense, seed=9, mask=jobs_of(spec)[1]["ticket"].mask)) in keys
    drawn = replace(dense.model, init="signed_constant", norm_init="uniform")
    assert pack_key(replace(dense, model=drawn)) == pack_key(dense)
    assert pack_key(replace(dense, model=ModelSpec(name="toys:batch_norm_net"))) is None


def test_a_job_waits_for_the_one_that_finds_its_mask() -> None:
    spec = TicketSpec(
        model=MLP, train=QUICK, levels=1, branches=CONTROLS,
        prune=PruneSpec(when="during", fraction=0.5),
    )  # fmt: skip
    (_, level) = jobs_of(spec)
    assert [[job.finds is not None for job in each] for each in groups(list(level.values()))] == [
        [True],
        [False, False],
    ]
    twice = [replace(level["ticket"], keep=keep) for keep in ((3,), (5,))]
    assert [[job.keep for job in each] for each in groups(twice)] == [[(3, 5)]]


def test_copies_of_a_dense_run_wait_for_its_rewind_point_and_do_not_train_it_again() -> None:
    trained = list[Job]()

    class Noting(Trainer):
        def _train(self, job: Job):  # type: ignore[no-untyped-def]
            trained.append(job)
            return super()._train(job)

    (spec,) = searches((0,), (5,), **TICKETS | {"branches": ("ticket", "twin"), "levels": 0})
    trainer = Noting(device="cpu", pack=4)
    (jobs,) = by_level([spec])
    assert [[job.first for job in each] for each in groups(jobs)] == [[0], [5, 5]]
    made = [result.training.made_with.get("pack") for result in trainer(jobs)]
    assert made == [None, "2", "2"]
    assert [job.digest for job in trained] == [jobs[0].digest]


def test_a_ticket_that_finds_its_mask_in_training_is_trained_once_before_its_controls() -> None:
    gmp = {"prune": PruneSpec(when="during", fraction=0.5)}
    (spec,) = searches((0,), (0,), **TICKETS | gmp)
    trainer = Trainer(device="cpu", pack=4)
    results = [trainer(jobs) for jobs in by_level([spec])]
    assert [[result.reused for result in each] for each in results] == [[False], [False] * 3]
    made = [result.training.made_with.get("pack") for result in results[1]]
    assert made == [None, "2", "2"]


def test_controls_of_a_ticket_that_diverges_are_left_out_of_the_pack_of_others() -> None:
    gmp = {"prune": PruneSpec(when="during", fraction=0.5)}
    one, other = searches((0, 1), (0,), **TICKETS | gmp)
    (_, level), (_, wild) = jobs_of(one), jobs_of(other)
    train = replace(QUICK, lr=1e30, optimizer="sgd")
    ticket = replace(wild["ticket"], train=train)
    controls = [replace(wild[name], mask=FinalMask(by=ticket)) for name in ("reinit", "reinit")]
    trainer = Trainer(device="cpu", pack=4)
    trainer.train_ahead([*level.values(), ticket, *controls])
    assert all(trainer.known(job) for job in level.values())
    with pytest.raises(DivergedError):
        trainer([ticket])


def test_packs_are_filled_up_with_later_jobs_whose_inputs_are_stored() -> None:
    prune = PruneSpec(when="never", score="edge-popup", lr=0.05)
    (spec,) = searches((0,), (0,), **TICKETS | {"prune": prune, "levels": 4})
    (dense,), *levels = by_level([spec])
    later = [[job for jobs in levels[after:] for job in jobs] for after in range(5)]
    trainer = Trainer(device="cpu", pack=3)

    def known() -> list[int]:
        return [sum(map(trainer.known, jobs)) for jobs in levels]

    trainer.train_ahead([dense], later[0])
    assert known() == [0] * 4  # another program than the dense run's
    trainer.train_ahead(levels[0], later[1])
    assert known() == [3, 2, 1, 0]  # tickets of three levels, then two controls and one more
    iterative = list(by_level(searches((0,), (0,), **TICKETS)))
    trainer.train_ahead(iterative[0], iterative[1])
    assert not any(map(trainer.known, iterative[1]))  # they share a program with the dense run
