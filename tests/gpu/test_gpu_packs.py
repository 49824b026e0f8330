"""Packs and CUDA graphs on the device, against the same runs alone and without graphs."""

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from small import DIGITS, PIXELS, dense_job

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.masks import State
from lth_core.resolve import resolve
from lth_core.train.loop import Outcome, Run
from lth_core.train.pack import stack
from lth_core.train.pack.forward import Way, ways_of
from lth_core.train.pack.graph import can_capture
from lth_core.train.pack.pack import Pack
from lth_core.train.pack.size import measure
from lth_core.train.probe import WARM_UP

SEEDS = (0, 1, 2)
COSINE: dict[str, Any] = {"schedule": "cosine", "warmup": "3it", "steps": "12it",
                          "evaluate_every": "6it"}  # fmt: skip
CASES: dict[str, TicketSpec] = {
    "mlp, adam": replace(DIGITS, train=replace(DIGITS.train, **COSINE)),
    "mlp, dropout, adamw": replace(
        DIGITS, model=ModelSpec(widths=(16,), dropout=0.3),
        train=replace(DIGITS.train, optimizer="adamw", weight_decay=0.1),
    ),
    "mlp, sgd, short last batches": replace(
        DIGITS, data=replace(DIGITS.data, fraction=0.1), train=replace(
            DIGITS.train, optimizer="sgd", momentum=0.9, nesterov=True, lr=0.05, batch_size=50,
            **COSINE,
        ),
    ),
    "resnet-8, crop and flip": PIXELS,
    "conv-2, bf16": replace(
        PIXELS, model=ModelSpec(name="conv-2", width=0.1),
        train=replace(PIXELS.train, precision="bf16"),
    ),
    "lstm": replace(DIGITS, model=ModelSpec(name="lstm", width=0.25)),
    "gmp": replace(DIGITS, prune=PruneSpec(when="during", fraction=0.5, begin="2it", end="8it",
                                           every="2it")),
    "rigl": replace(DIGITS, prune=PruneSpec(when="during", fraction=0.5, grow="gradient",
                                            begin="2it", end="8it", every="2it")),
    "edge-popup": replace(DIGITS, prune=PruneSpec(when="never", score="edge-popup", lr=0.05)),
    "supermask": replace(DIGITS, prune=PruneSpec(when="never", score="supermask", lr=0.05)),
}  # fmt: skip


def jobs_of(spec: TicketSpec) -> list[Job]:
    """Jobs of three seeds: the dense runs, or those that find the masks."""
    found = []
    for seed in SEEDS:
        dense, level = levels(resolve(replace(spec, seed=seed)))
        found.append(level["ticket"] if level["ticket"].finds else dense["dense"])
    return found


def ended(
    jobs: Sequence[Job], device: str, *, packed: bool, way: Way | None = None
) -> list[Outcome]:
    """Outcomes of jobs, trained as one pack or one after the other."""
    trainer = Trainer(device=device)
    runs = [Run(trainer._prepare(job).task) for job in jobs]
    way = way or ways_of(runs[0].task.model, torch.device(device))[0]
    for pack in [Pack(runs, way)] if packed else [Pack([run], way) for run in runs]:
        for _ in pack:
            pass
        assert not pack.errors
    return [run.outcome() for run in runs]


def assert_near(state: State, expected: State, rel: float) -> None:
    for name, value in expected.items():
        if value.is_floating_point():
            difference = float((state[name] - value).abs().max())
            assert difference <= rel * float(value.abs().max()) + 1e-6, name


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if number == 0 else pytest.mark.long)
    for number, name in enumerate(CASES)
])  # fmt: skip
def test_pack_is_near_its_members_trained_alone(device: str, name: str) -> None:
    jobs = jobs_of(CASES[name])
    packed, alone = (ended(jobs, device, packed=each) for each in (True, False))
    for ours, expected in zip(packed, alone, strict=True):
        rough = 0.2 if "bf16" in name else 0.05
        assert ours.curves.step == expected.curves.step
        assert ours.curves.train_loss == pytest.approx(expected.curves.train_loss, rel=rough)
        kept = [sum(int(m.sum()) for m in each.mask.values()) for each in (ours, expected)]
        assert kept[0] == kept[1]
        if jobs[0].finds is None:  # else a weight at the limit may be in one mask alone
            assert_near(ours.state, expected.state, 4 * rough)


ONE_CHANNEL = replace(PIXELS, model=ModelSpec(name="resnet-8", width=1 / 16))
"""Where a weight has one channel, its strides do not tell a layout: torch may choose any."""


@pytest.mark.parametrize("size", [1, 3])
def test_resumed_pack_of_convolutions_of_one_channel_is_equal_to_the_bit(
    device: str, size: int
) -> None:
    trainer, jobs = Trainer(device=device), jobs_of(ONE_CHANNEL)[:size]
    whole, first, second = ([Run(trainer._prepare(job).task) for job in jobs] for _ in range(3))
    for _ in Pack(whole):
        pass
    next(iter(Pack(first)))
    for run, interrupted in zip(second, first, strict=True):
        run.restore(interrupted.checkpoint())
    for _ in Pack(second):
        pass
    for ours, expected in zip(second, whole, strict=True):
        state, other = ours.outcome().state, expected.outcome().state
        assert all(value.equal(other[name]) for name, value in state.items())


def test_moments_have_the_layout_of_their_weights(device: str) -> None:
    """Fused kernels read weights, gradients and moments in the order of memory."""
    prune = PruneSpec(when="during", fraction=0.3, begin="1it", end="3it", every="1it")
    spec = replace(ONE_CHANNEL, prune=prune)
    trainer = Trainer(device=device)
    first, second = ([Run(trainer._prepare(job).task) for job in jobs_of(spec)] for _ in range(2))
    next(iter(Pack(first)))
    for run, interrupted in zip(second, first, strict=True):
        run.restore(interrupted.checkpoint())
    optimizers = [*stack.Stack(second)._optimizers, *(run.optimizer for run in second)]
    for optimizer in optimizers:
        for weight, state in optimizer.state.items():
            assert state["momentum_buffer"].stride() == weight.stride()


@pytest.mark.long
@pytest.mark.parametrize("way", Way)
def test_ways_to_compute_a_pack_agree(device: str, way: Way) -> None:
    jobs = jobs_of(PIXELS)
    expected = ended(jobs, device, packed=False)
    for ours, alone in zip(ended(jobs, device, packed=True, way=way), expected, strict=True):
        assert ours.curves.train_loss == pytest.approx(alone.curves.train_loss, rel=0.05)
        assert_near(ours.state, alone.state, 0.2)


def test_runs_that_start_later_join_a_pack(device: str) -> None:
    spec = replace(CASES["mlp, adam"], rewind=5, branches=("ticket", "reinit", "random_mask"))
    _, level = levels(resolve(spec))
    jobs = list(level.values())
    assert {job.first for job in jobs} == {0, 5}
    for ours, expected in zip(ended(jobs, device, packed=True), ended(jobs, "cpu", packed=False),
                              strict=True):  # fmt: skip
        assert ours.curves.step == expected.curves.step
        assert ours.curves.train_loss == pytest.approx(expected.curves.train_loss, rel=0.1)


@pytest.mark.parametrize(("name", "way", "packed"), [
    *product(("mlp, adam", "mlp, sgd, short last batches"), [None], [False, True]),
    ("lstm", None, True),
    ("conv-2, bf16", None, True),
    *(pytest.param("resnet-8, crop and flip", way, True,
                   marks=() if way is Way.STACKED else pytest.mark.long) for way in Way),
])  # fmt: skip
def test_graph_of_a_step_computes_what_the_step_does(
    device: str, name: str, way: Way | None, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates, order and draws are not frozen, and the last batch of an epoch has its own graph."""
    if device == "cpu":
        pytest.skip("a CPU has no graphs")
    spec = CASES[name]
    spec = replace(spec, train=replace(spec.train, **COSINE))
    jobs = jobs_of(spec)[: None if packed else 1]
    captured = []
    capture = stack.StepGraph._capture

    def watched(graph: Any, compute: Any, index: Any, draw: Any) -> Any:
        captured.append(index.shape[1])
        return capture(graph, compute, index, draw)

    monkeypatch.setattr(stack.StepGraph, "_capture", watched)
    with_graph = ended(jobs, device, packed=True, way=way)
    assert captured
    assert len(set(captured)) == len(captured), "one graph for each batch size"
    count = len(captured)
    monkeypatch.setattr(stack, "can_capture", lambda tasks: False)
    plain = ended(jobs, device, packed=True, way=way)
    assert len(captured) == count
    for ours, expected in zip(with_graph, plain, strict=True):
        assert ours.curves.train_loss == pytest.approx(expected.curves.train_loss, rel=1e-3)
        assert_near(ours.state, expected.state, 0.02 if "bf16" in name else 2e-3)


def test_memory_of_a_pack_is_freed_with_it(device: str) -> None:
    """Not at some later garbage collection: a graph holds much of a GPU's memory."""
    trainer = Trainer(device=device)
    runs = [Run(trainer._prepare(job).task) for job in jobs_of(CASES["mlp, adam"])]
    gc.disable()
    try:
        pack = Pack(runs)
        for _ in pack:
            pass
        models = [weakref.ref(run.task.model) for run in runs]
        del pack, runs
        assert [model() for model in models] == [None] * len(SEEDS)
    finally:
        gc.enable()


def test_steps_that_draw_or_decide_on_the_cpu_have_no_graph(device: str) -> None:
    trainer = Trainer(device=device)
    for name, captures in (("mlp, adam", True), ("mlp, dropout, adamw", False), ("rigl", False)):
        (job, *_) = jobs_of(CASES[name])
        assert can_capture([trainer._prepare(job).task]) is (captures and device != "cpu")


def test_speeds_of_packs_are_measured(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lth_core.train.pack.size.SIZES", (1, 2))
    trainer = Trainer(device=device)
    job = dense_job(replace(CASES["mlp, adam"], train=replace(DIGITS.train, steps=100_000)))
    speeds = measure(lambda: trainer._prepare(job).task, torch.device(device))
    assert 1 in speeds.steps_per_second
    assert all(speed > 0 for speed in speeds.steps_per_second.values())


@pytest.mark.parametrize("name", ["mlp, adam", "rigl"])
def test_speed_of_a_training_alone_is_that_of_its_stack(
    device: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = list[int]()
    step = stack.Stack.step
    monkeypatch.setattr(
        stack.Stack,
        "step",
        lambda own, number, *batch: (steps.append(number), step(own, number, *batch))[1],
    )
    job = dense_job(replace(CASES[name], train=replace(CASES[name].train, steps=200)))
    assert Trainer(device=device).probe(job, 0.01) > 0
    assert len(steps) > WARM_UP or device == "cpu"
