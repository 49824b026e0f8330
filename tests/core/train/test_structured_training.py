"""Training under a mask of channels is training of the network without those channels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from structures import random_kept, sizes
from torch import nn
from torch.nn.functional import cross_entropy
from toys import jobs_of

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, masks
from lth_core.jobs.recipes import Init, Job
from lth_core.masks import Mask, State
from lth_core.models.channels import (
    Channels,
    Kept,
    channels_of,
    kept_channels,
    kept_entries,
    without_channels,
)
from lth_core.prune.structure import ChannelUnits
from lth_core.train.batches import Order
from lth_core.train.loop import Run, Task, add_norm_penalty, state_of
from lth_core.train.masking.base import Fixed

SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
ADAM = {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1}
MODELS = {
    "conv-4": ModelSpec(name="conv-4", width=0.1),
    "resnet-8": ModelSpec(name="resnet-8", width=0.5),
    "vgg-11": ModelSpec(name="vgg-11", width=0.05),
    "mobilenet-v2": ModelSpec(name="mobilenet-v2", width=0.25),
}
QUICK = ("conv-4", "resnet-8")
FAMILIES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]


def spec_of(name: str, train: dict[str, Any], **fields: Any) -> TicketSpec:
    given: dict[str, Any] = {
        "prune": PruneSpec(structure="channels", fraction=0.5), "levels": 1,
        "branches": ("ticket", "scratch_e"), **fields,
    }  # fmt: skip
    return TicketSpec(
        data=DataSpec(name="mnist-5k", fraction=0.03) if "vgg" in name else DataSpec(fraction=0.1),
        model=MODELS[name],
        train=TrainSpec(**{"steps": 6, "evaluate_every": 6, "batch_size": 32, **train}), **given,
    )  # fmt: skip


def structure(trainer: Trainer, job: Job) -> tuple[Channels, Kept, Mask]:
    """A random structure of a job's network, and its mask of weights."""
    channels = trainer.channels(job)
    kept = random_kept(channels, seed=1)
    return channels, kept, ChannelUnits(channels).mask(kept, masks.ones(trainer.model(job)))


def steps_of(trainer: Trainer, job: Job, model: nn.Module, masking: Fixed) -> list[State]:
    """The network after each step."""
    dataset = trainer.data(job)
    order = Order(len(dataset.train), job.train.batch_size, job.seed, job.run)
    task = Task(model, masking, dataset, job.train, order, job.first, job.last)
    return [state_of(model) for _ in Run(task)]


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda net: torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_masked_network_trains_as_the_network_without_its_channels(
    name: str, optimizer: str
) -> None:
    """In double precision: in single, rounding errors of deep networks grow tenfold a step."""
    trainer, job = Trainer(), jobs_of(spec_of(name, SGD))[1]["ticket"]
    channels, kept, mask = structure(trainer, job)
    model = trainer.network(job, trainer.masked(job, trainer.start(job), mask)).double()
    small, data = without_channels(model, channels, kept), trainer.data(job)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    masking = Fixed(model, mask, partial(trainer.removed_with, job))
    optimizers = [OPTIMIZERS[optimizer](net) for net in (model, small)]
    for step in range(4):
        part = slice(20 * step, 20 * step + 20)
        x, y = data.normalize(data.train.x[part]).double(), data.train.y[part]
        for net, each in zip((model, small), optimizers, strict=True):
            each.zero_grad()
            cross_entropy(net(x), y).backward()
            each.step()
        with torch.no_grad():
            masking.after_step()
    whole, entries = state_of(model), kept_entries(channels, kept)
    for tensor, value in state_of(small).items():
        cut = whole[tensor]
        for dim, stays in entries.get(tensor, {}).items():
            cut = cut.index_select(dim, stays.nonzero().flatten())
        # Adam divides by the size of a gradient, so by that of a rounding error too.
        atol = 1e-6 if optimizer == "sgd" else 1e-2
        assert torch.allclose(cut.double(), value.double(), rtol=1e-4, atol=atol), tensor


@pytest.mark.parametrize("train", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_biases_and_norms_of_removed_channels_are_zero_after_every_step(
    name: str, train: dict[str, Any]
) -> None:
    trainer, job = Trainer(), jobs_of(spec_of(name, train))[1]["ticket"]
    channels, kept, mask = structure(trainer, job)
    model = trainer.network(job, trainer.masked(job, trainer.start(job), mask))
    masking = Fixed(model, mask, partial(trainer.removed_with, job))
    entries, seen = kept_entries(channels, kept), 0
    for state in steps_of(trainer, job, model, masking):
        for tensor, dims in entries.items():
            if tensor not in dict(model.named_parameters()):
                continue
            for dim, stays in dims.items():
                gone = state[tensor].index_select(dim, (~stays).nonzero().flatten())
                assert (gone == 0).all(), tensor
                seen += gone.numel()
    assert seen


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["ticket", "scratch_e"])
def test_removed_channels_are_zero_in_what_is_stored_and_counted(branch: str) -> None:
    trainer, job = Trainer(), jobs_of(spec_of("resnet-8", SGD))[1][branch]
    (result,) = trainer([job])
    state, mask = trainer.final(job)
    kept = kept_channels(trainer.channels(job), mask)
    assert not all(k.all() for k in kept.values())
    model = trainer.network(job, state)
    small = without_channels(model, trainer.channels(job), kept)
    assert result.training.kept_parameters == sum(p.numel() for p in small.parameters())
    removed = trainer.removed_with(job, mask)
    assert removed
    assert all((state[name][~m] == 0).all() for name, m in {**mask, **removed}.items())


def test_single_weights_take_no_biases_or_norms_along() -> None:
    trainer, job = Trainer(), jobs_of(spec_of("resnet-8", SGD))[0]["dense"]
    assert (
        trainer.removed_with(job, {n: ~m for n, m in masks.ones(trainer.model(job)).items()}) == {}
    )


# Slimming


def test_penalty_on_scales_has_the_subgradient_of_their_size() -> None:
    scale = nn.Parameter(torch.tensor([0.7, -2.0, 0.0]))
    scale.grad = torch.tensor([1.0, 1.0, 1.0])
    add_norm_penalty([scale], 0.01)
    assert scale.grad.tolist() == pytest.approx([1.01, 0.99, 1.0])


@pytest.mark.parametrize("rewind", [0, 3])
def test_dense_run_alone_trains_with_the_penalty_on_scales(rewind: int) -> None:
    """The first step of plain SGD: of scales it differs by rate x penalty, of all else not at all."""
    train = {"optimizer": "sgd", "lr": 0.5, "steps": 6}
    plain = jobs_of(spec_of("resnet-8", train, rewind=rewind))
    slim = jobs_of(spec_of("resnet-8", {**train, "norm_penalty": 0.01}, rewind=rewind))
    trainer, dense = Trainer(), [jobs[0]["dense"] for jobs in (plain, slim)]
    one, other = (trainer._outcome(trainer._prepare(job, [1])).state for job in dense)
    for name, value in one.items():
        is_scale = "norm" in name and name.endswith("weight")
        expected = value - 0.005 if is_scale else value  # scales begin at 1
        assert torch.allclose(other[name], expected, atol=1e-6), name
    assert slim[0]["dense"].train.norm_penalty == 0.01
    assert {j.train.norm_penalty for j in slim[1].values()} == {0.0}
    assert slim[1]["ticket"].train == plain[1]["ticket"].train


# Networks from scratch


@pytest.mark.slow
@pytest.mark.parametrize(
    "init", ["kaiming_normal", "lecun_normal", "xavier_normal", "kaiming_uniform"]
)
def test_fresh_weights_are_drawn_for_the_inputs_that_are_left(init: str) -> None:
    model = ModelSpec(name="conv-2", width=0.6, init=init)  # type: ignore[arg-type]
    spec = TicketSpec(
        data=DataSpec(fraction=0.1), model=model, train=TrainSpec(steps=2), levels=1,
        prune=PruneSpec(structure="channels", when="before", fraction=0.75, score="random"),
        branches=("ticket", "scratch_e"),
    )  # fmt: skip
    trainer, job = Trainer(), jobs_of(spec)[1]["scratch_e"]
    mask, state = trainer.mask(job.mask, job), trainer.start(job)
    for name, m in mask.items():
        rows, columns = m.flatten(1).any(1), m.transpose(0, 1).flatten(1).any(1)
        window = m[0, 0].numel() if m.dim() > 2 else 1
        fan_in, fan_out = int(columns.sum()) * window, int(rows.sum()) * window
        gain = {"lecun_normal": 1 / fan_in, "xavier_normal": 2 / (fan_in + fan_out)}
        values = state[name][m]
        assert len(values) == fan_in * int(rows.sum())
        assert (state[name][~m] == 0).all()
        error = 4 / len(values) ** 0.5
        assert float(values.std()) == pytest.approx(gain.get(init, 2 / fan_in) ** 0.5, rel=error)
    assert any(not m.all() for m in mask.values())


def test_fresh_weights_depend_on_seed_and_level_and_are_not_those_of_other_draws() -> None:
    trainer = Trainer()
    spec = spec_of("conv-4", SGD, levels=2)
    first, second = (jobs["scratch_e"] for jobs in jobs_of(spec)[1:])
    starts = [trainer.start(first), trainer.start(second), trainer.drawn(Init(seed=0), first)]
    name = "conv1.weight"
    mask = trainer.mask(second.mask, second)[name]
    values = [tuple(s[name][mask].tolist()) for s in starts]
    assert len(set(values)) == 3
    again = Trainer().start(first)[name]
    assert torch.equal(again, starts[0][name])


def test_norms_from_scratch_are_as_built() -> None:
    trainer, job = Trainer(), jobs_of(spec_of("resnet-8", SGD))[1]["scratch_e"]
    state, model = trainer.start(job), trainer.model(job)
    built = channels_of(model, trainer.data(job).shape)
    assert built.keys() == trainer.channels(job).keys()
    for name in sizes(model):
        if "norm" in name:
            assert (state[name] == (1 if name.endswith("weight") else 0)).all()


def test_ticket_from_scratch_is_not_rewound() -> None:
    trainer = Trainer()
    spec = spec_of("conv-4", SGD, rewind=3)
    jobs = jobs_of(spec)[1]
    assert trainer.ticket(spec, 1, "scratch_e", jobs["scratch_e"]).rewind_step == 0
    assert trainer.ticket(spec, 1, "ticket", jobs["ticket"]).rewind_step == 3
