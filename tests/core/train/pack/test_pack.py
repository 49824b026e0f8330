"""A pack equals its members trained alone: in float64 to rounding, in float32 statistically."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from double import Double
from pack_jobs import CONTROLS, MLP, TICKETS, by_level, dense_of, searches
from toys import timeless

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.errors import SpecError
from lth_core.jobs.branches import BRANCHES
from lth_core.masks import State
from lth_core.resolve import resolve
from lth_core.train.pack.forward import Way

SGD: dict[str, Any] = {
    "optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "warmup": "5it",
    "steps": "50it", "evaluate_every": "25it", "schedule": "cosine",
}  # fmt: skip
ADAM: dict[str, Any] = {"lr": 2e-3, "steps": "50it", "evaluate_every": "25it"}
FEW = DataSpec(fraction=0.3)
COLOURS = DataSpec(name="toys:colours")
IMAGES = {"steps": "12it", "evaluate_every": "6it", "batch_size": 11}
"""Of `COLOURS`, an epoch has 4 batches of 11 and one of a single example."""
EVERY_BRANCH = tuple(name for name in BRANCHES if not name.startswith("scratch"))


def worst(states: Sequence[tuple[State, State]]) -> float:
    """Largest difference of two states, as a share of the largest entry of its tensor."""
    pairs = [(a[name].double(), b[name].double()) for a, b in states for name in a]
    return max(float((x - y).abs().max() / y.abs().max().clamp(min=1e-12)) for x, y in pairs)


CASES: dict[str, tuple[dict[str, Any], list[int]]] = {
    # Two seeds, rewound to steps 7 and 0: the dense runs, then all branches of both steps.
    "mlp": ({"model": MLP, "train": TrainSpec(**SGD), "branches": CONTROLS}, [2, 10, 12]),
    "every branch": ({"model": MLP, "train": TrainSpec(**ADAM | {"steps": "20it"}),
                      "branches": EVERY_BRANCH, "levels": 1}, [4, 4, 34]),
    "conv-2": ({"model": ModelSpec(name="conv-2", width=0.1, dropout=0.2), "data": COLOURS,
                "train": TrainSpec(**ADAM | IMAGES), "branches": CONTROLS, "levels": 1}, [2, 10]),
    "resnet-8, crop and flip": (
        {"model": ModelSpec(name="resnet-8", width=0.25), "branches": ("ticket", "reinit"),
         "data": replace(COLOURS, augment="crop_flip"), "train": TrainSpec(**SGD | IMAGES),
         "levels": 1}, [2, 6]),
    "vit": ({"model": ModelSpec(name="vit-tiny", width=0.25, depth=2), "data": COLOURS,
             "train": TrainSpec(**SGD | IMAGES), "branches": ("ticket",), "levels": 1}, [2, 4]),
    "norm penalty": ({"model": ModelSpec(name="resnet-8", width=0.25), "branches": ("ticket",),
                      "data": COLOURS, "train": TrainSpec(**SGD | IMAGES, norm_penalty=1e-3),
                      "levels": 0}, [2]),
    "replayed order": ({"model": MLP, "train": TrainSpec(**ADAM, replay_order=True),
                        "branches": CONTROLS, "levels": 1}, [2, 10]),
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
    model = MLP if network == "mlp" else ModelSpec(name=network, width=0.1)
    spec = TicketSpec(
        model=model, train=TrainSpec(**SGD), levels=3, branches=("ticket",), data=FEW
    )  # fmt: skip
    plain = [level.records[-1] for level in find_tickets(spec, Trainer(device="cpu"))]
    monkeypatch.setattr("lth_core.train.pack.pack.trains_plainly", lambda runs: False)
    stacked = [level.records[-1] for level in find_tickets(spec, Trainer(device="cpu"))]
    assert [row["mask_digest"] for row in stacked] == [row["mask_digest"] for row in plain]
    for one, other in zip(stacked, plain, strict=True):
        assert one["final_test_accuracy"] == pytest.approx(other["final_test_accuracy"], abs=0.01)


@pytest.mark.slow
def test_members_may_differ_in_rates_decay_label_noise_and_initialization() -> None:
    spec = resolve(TicketSpec(model=MLP, train=TrainSpec(**SGD), levels=0))
    jobs = [dense_of(spec)]
    for change in ({"lr": 0.01}, {"weight_decay": 0.1}, {"schedule": "constant"}):
        jobs.append(replace(jobs[0], train=replace(jobs[0].train, **change)))
    jobs.append(replace(jobs[0], data=replace(jobs[0].data, label_noise=0.3)))
    jobs.append(replace(jobs[0], model=replace(jobs[0].model, init="signed_constant")))
    alone, packed = Double(pack=1), Double(pack=99)
    alone(jobs)
    packed(jobs)
    assert packed.packs == [6]
    states = [(packed.ended[job.digest].state, alone.ended[job.digest].state) for job in jobs]
    assert worst(states) < 1e-9
    for job in jobs[1:]:  # each differs from the first, as trained alone
        assert worst([(packed.ended[job.digest].state, states[0][0])]) > 1e-3


@pytest.mark.slow
def test_accuracies_are_statistically_equal_in_float32() -> None:
    """The mean difference over five dense runs and tickets is within two standard errors and a
    tenth of a point."""
    train = TrainSpec(**ADAM | {"steps": "100it", "evaluate_every": "100it"})
    specs = searches(range(5), (0,), model=MLP, train=train, levels=1, branches=("ticket",))
    alone, packed = (Trainer(device="cpu", pack=pack) for pack in (1, 5))
    differences = []
    for jobs in by_level(specs):
        for one, other in zip(packed(jobs), alone(jobs), strict=True):
            curves = one.training.curves, other.training.curves
            differences.append(curves[0].test_accuracy[-1] - curves[1].test_accuracy[-1])
    gaps = torch.tensor(differences)
    assert abs(float(gaps.mean())) <= 2 * float(gaps.std()) / len(gaps) ** 0.5 + 0.001


def test_records_show_a_pack_in_made_with_alone() -> None:
    (spec,) = searches((0,), (3,), **TICKETS)
    rows = [
        [timeless(row) for level in find_tickets(spec, Trainer(pack=pack)) for row in level.records]
        for pack in (1, 4)
    ]
    assert [row.keys() for row in rows[0]] == [row.keys() for row in rows[1]]
    trainer = Trainer(pack=2)
    made = [r.training.made_with.get("pack") for jobs in by_level([spec]) for r in trainer(jobs)]
    assert made == [None, "2", "2", None]  # the dense run and the last branch are alone
    reused = [result.reused for jobs in by_level([spec]) for result in trainer(jobs)]
    assert reused == [True] * 4


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
