"""A pack equals its members trained alone: in float64 to rounding, in float32 statistically."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
from double import Double
from toys import jobs_of, timeless

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.errors import DivergedError, PreemptedError, SpecError
from lth_core.jobs.branches import BRANCHES
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.masks import State
from lth_core.resolve import resolve
from lth_core.store import Store
from lth_core.store.locks import claimed
from lth_core.train.pack.forward import Way
from lth_core.train.pack.rules import groups, pack_key

SGD: dict[str, Any] = {
    "optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "warmup": "5it",
    "steps": "50it", "evaluate_every": "25it", "schedule": "cosine",
}  # fmt: skip
ADAM: dict[str, Any] = {"lr": 2e-3, "steps": "50it", "evaluate_every": "25it"}
CONTROLS = ("ticket", "reinit", "random_mask")
FEW = DataSpec(fraction=0.3)
MLP = ModelSpec(widths=(20,))
EVERY_BRANCH = tuple(name for name in BRANCHES if not name.startswith("scratch"))


def searches(seeds: Sequence[int], rewinds: Sequence[int], **fields: Any) -> list[TicketSpec]:
    return [
        resolve(TicketSpec(seed=seed, rewind=rewind, **fields))
        for seed in seeds
        for rewind in rewinds
    ]


def by_level(specs: Sequence[TicketSpec]) -> Iterator[list[Job]]:
    """The jobs of all searches, level by level."""
    for level in zip(*map(levels, specs), strict=True):
        yield [job for branches in level for job in branches.values()]


def worst(states: Sequence[tuple[State, State]]) -> float:
    """Largest difference of two states, as a share of the largest entry of its tensor."""
    pairs = [(a[name].double(), b[name].double()) for a, b in states for name in a]
    return max(float((x - y).abs().max() / y.abs().max().clamp(min=1e-12)) for x, y in pairs)


CASES: dict[str, tuple[dict[str, Any], list[int]]] = {
    # Two seeds, rewound to steps 7 and 0: the dense runs, then all branches of both steps.
    "mlp": ({"model": MLP, "train": TrainSpec(**SGD), "branches": CONTROLS}, [2, 10, 12]),
    "every branch": ({"model": MLP, "train": TrainSpec(**ADAM), "branches": EVERY_BRANCH,
                      "levels": 1}, [8, 34]),
    "conv-2": ({"model": ModelSpec(name="conv-2", width=0.1, dropout=0.2),
                "data": FEW, "train": TrainSpec(**ADAM), "branches": CONTROLS, "levels": 1}, [2, 10]),
    "resnet-8, crop and flip": (
        {"model": ModelSpec(name="resnet-8", width=0.25), "branches": CONTROLS, "levels": 1,
         "data": replace(FEW, augment="crop_flip"), "train": TrainSpec(**SGD)}, [2, 10]),
    "vit": ({"model": ModelSpec(name="vit-tiny", width=0.25), "data": FEW, "train": TrainSpec(**ADAM),
             "branches": ("ticket",), "levels": 1}, [2, 4]),
    "norm penalty": ({"model": ModelSpec(name="resnet-8", width=0.25), "branches": ("ticket",),
                      "data": FEW, "train": TrainSpec(**SGD, norm_penalty=1e-3), "levels": 0}, [2]),
    "replayed order": ({"model": MLP, "train": TrainSpec(**ADAM, replay_order=True),
                        "branches": CONTROLS}, [2, 10, 12]),
    "gmp": ({"model": MLP, "train": TrainSpec(**ADAM), "branches": CONTROLS, "levels": 1,
             "prune": PruneSpec(when="during", fraction=0.5)}, [2, 4, 8]),
    "rigl": ({"model": MLP, "train": TrainSpec(**SGD), "branches": ("ticket",), "levels": 1,
              "prune": PruneSpec(when="during", fraction=0.5, grow="gradient")}, [2, 4]),
    "edge-popup": ({"model": MLP, "train": TrainSpec(**ADAM), "branches": ("ticket",), "levels": 1,
                    "prune": PruneSpec(when="never", score="edge-popup", lr=0.05)}, [2, 4]),
    "supermask": ({"model": MLP, "train": TrainSpec(**ADAM), "branches": ("ticket",), "levels": 1,
                   "prune": PruneSpec(when="never", score="supermask", lr=0.05)}, [2, 4]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_pack_equals_its_members_trained_alone_in_float64(name: str) -> None:
    fields, sizes = CASES[name]
    alone, packed = Double(pack=1), Double(pack=99)
    for jobs in by_level(searches((0, 1), (7, 0), **{"levels": 2, **fields})):
        packed.train_ahead(jobs)
        alone(jobs)
        results = packed(jobs)
        assert any(not result.reused for result in results)
    assert packed.packs == sizes
    pairs = [(packed.ended[digest], ended) for digest, ended in alone.ended.items()]
    assert worst([(one.state, other.state) for one, other in pairs]) < 1e-9
    for one, other in pairs:
        assert all(torch.equal(one.mask[n], other.mask[n]) for n in other.mask)
        assert one.curves.step == other.curves.step
        assert one.curves.validation_loss == pytest.approx(other.curves.validation_loss)
        assert one.curves.train_loss == pytest.approx(other.curves.train_loss)
        assert one.points.keys() == other.points.keys()
        for step, state in other.points.items():
            assert worst([(one.points[step], state)]) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), [
    ("conv-2", Way.EACH), ("conv-2", Way.UNFOLDED), ("resnet-8", Way.UNFOLDED), ("lstm", None),
])  # fmt: skip
def test_each_way_to_compute_a_pack_equals_the_others(name: str, way: Way | None) -> None:
    model = ModelSpec(name=name, width=0.1, dropout=0.2 if name == "conv-2" else 0.0)
    train = TrainSpec(**ADAM | {"steps": "20it"})
    jobs = [dense_of(spec) for spec in searches((0, 1), (0,), data=FEW, model=model, train=train)]
    alone, packed = Double(pack=1), Double(pack=2, way=way)
    alone(jobs)
    packed(jobs)
    assert packed.packs == [2]
    states = [(packed.ended[job.digest].state, alone.ended[job.digest].state) for job in jobs]
    assert worst(states) < 1e-9


@pytest.mark.slow
def test_masks_of_five_levels_are_equal_in_float64() -> None:
    alone, packed = Double(pack=1), Double(pack=99)
    train = TrainSpec(**ADAM)
    specs = searches((0, 1, 2), (0,), model=MLP, train=train, levels=5, branches=("ticket",))
    for jobs in by_level(specs):
        for job, one, other in zip(jobs, packed(jobs), alone(jobs), strict=True):
            assert one.training.mask_digest == other.training.mask_digest, job.level
    assert packed.packs == [3] * 6


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "conv-2"])
def test_stack_of_one_gives_the_masks_of_the_plain_loop_in_float32(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU trains single jobs as a stack of one, from which its graph is made."""
    width = {"mlp": 1.0, "conv-2": 0.1}[network]
    model = ModelSpec(name=network, widths=(20,), width=width)
    spec = TicketSpec(
        model=model, train=TrainSpec(**SGD), levels=3, branches=("ticket",), data=FEW
    )  # fmt: skip
    plain = [level.records()[-1] for level in find_tickets(spec, Trainer(device="cpu"))]
    monkeypatch.setattr("lth_core.train.pack.pack.trains_plainly", lambda runs: False)
    stacked = [level.records()[-1] for level in find_tickets(spec, Trainer(device="cpu"))]
    assert [row["mask_digest"] for row in stacked] == [row["mask_digest"] for row in plain]
    for one, other in zip(stacked, plain, strict=True):
        assert one["final_test_accuracy"] == pytest.approx(other["final_test_accuracy"], abs=0.01)


@pytest.mark.slow
def test_members_may_differ_in_rates_decay_and_label_noise() -> None:
    spec = resolve(TicketSpec(model=MLP, train=TrainSpec(**SGD), levels=0))
    jobs = [dense_of(spec)]
    for change in ({"lr": 0.01}, {"weight_decay": 0.1}, {"schedule": "constant"}):
        jobs.append(replace(jobs[0], train=replace(jobs[0].train, **change)))
    jobs.append(replace(jobs[0], data=replace(jobs[0].data, label_noise=0.3)))
    alone, packed = Double(pack=1), Double(pack=99)
    alone(jobs)
    packed(jobs)
    assert packed.packs == [5]
    states = [(packed.ended[job.digest].state, alone.ended[job.digest].state) for job in jobs]
    assert worst(states) < 1e-9
    for job in jobs[1:]:  # each differs from the first, as trained alone
        assert worst([(packed.ended[job.digest].state, states[0][0])]) > 1e-3


@pytest.mark.slow
def test_accuracies_are_statistically_equal_in_float32() -> None:
    """The mean difference over ten seeds is within two standard errors and a tenth of a point."""
    train = TrainSpec(**ADAM | {"steps": "200it", "evaluate_every": "200it"})
    specs = searches(range(10), (0,), model=MLP, train=train, levels=1, branches=("ticket",))
    alone, packed = (Trainer(device="cpu", pack=pack) for pack in (1, 10))
    differences = []
    for jobs in by_level(specs):
        for one, other in zip(packed(jobs), alone(jobs), strict=True):
            curves = one.training.curves, other.training.curves
            differences.append(curves[0].test_accuracy[-1] - curves[1].test_accuracy[-1])
    gaps = torch.tensor(differences)
    assert abs(float(gaps.mean())) <= 2 * float(gaps.std()) / len(gaps) ** 0.5 + 0.001


def dense_of(spec: TicketSpec) -> Job:
    return jobs_of(spec)[0]["dense"]


QUICK = TrainSpec(lr=2e-3, steps="12it", evaluate_every="4it")
TICKETS: dict[str, Any] = {"model": MLP, "train": QUICK, "levels": 1, "branches": CONTROLS}


def test_records_show_a_pack_in_made_with_alone() -> None:
    (spec,) = searches((0,), (3,), **TICKETS)
    rows = [
        [
            timeless(row)
            for level in find_tickets(spec, Trainer(pack=pack))
            for row in level.records()
        ]
        for pack in (1, 4)
    ]
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]
    trainer = Trainer(pack=2)
    made = [r.training.made_with.get("pack") for jobs in by_level([spec]) for r in trainer(jobs)]
    assert made == [None, "2", "2", None]  # the dense run and the last branch are alone
    reused = [result.reused for jobs in by_level([spec]) for result in trainer(jobs)]
    assert reused == [True] * 4


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


class After:
    """An event that is set once it was asked so often."""

    def __init__(self, times: int) -> None:
        self.times = times

    def is_set(self) -> bool:
        self.times -= 1
        return self.times < 0


def test_a_run_that_diverges_leaves_its_pack() -> None:
    jobs = [dense_of(spec) for spec in searches((0, 1, 2), (0,), **TICKETS)]
    jobs[1] = replace(jobs[1], train=replace(jobs[1].train, optimizer="sgd", lr=1e30))
    jobs[0], jobs[2] = (replace(j, train=replace(j.train, optimizer="sgd")) for j in jobs[::2])
    alone, packed = Trainer(pack=1), Trainer(pack=3)
    packed.train_ahead(jobs)
    with pytest.raises(DivergedError, match="not finite at step 4"):
        packed([jobs[1]])
    for job in jobs[::2]:
        (one,), (other,) = packed([job]), alone([job])
        assert not one.reused
        expected = other.training.curves.validation_loss
        assert one.training.curves.validation_loss == pytest.approx(expected, rel=1e-4)


def test_a_job_that_another_process_trains_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [dense_of(spec) for spec in searches((0, 1, 2), (0,), **TICKETS)]
    trainer = Trainer(pack=3)
    with claimed(trainer.store.files, jobs[1].digest, lambda: False):
        trainer.train_ahead(jobs)
    assert [trainer.known(job) for job in jobs] == [True, False, True]
    assert [result.reused for result in trainer(jobs)] == [False] * 3


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


@pytest.mark.parametrize("pack", [0, -1, 1.5, "most", True, None])
def test_bad_sizes_of_packs_are_refused(pack: Any) -> None:
    with pytest.raises(SpecError, match="pack: must be auto or a whole number"):
        Trainer(pack=pack)


@pytest.mark.long
def test_compiled_pack_equals_the_others() -> None:
    jobs = [dense_of(spec) for spec in searches((0, 1), (0,), **TICKETS)]
    plain, compiled = Trainer(pack=2), Trainer(pack=2, compiled=True)
    for one, other in zip(compiled(jobs), plain(jobs), strict=True):
        assert one.training.made_with["compiled"] == "true"
        assert "compiled" not in other.training.made_with
        curves = one.training.curves, other.training.curves
        assert curves[0].validation_loss == pytest.approx(curves[1].validation_loss, rel=1e-3)
        assert one.training.seconds > other.training.seconds  # compilation is counted
