"""Training without the removed channels, against training the whole network under its mask."""

import pytest
import torch

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.jobs.recipes import Job
from lth_core.models.channels import channels_of, kept_channels
from lth_core.models.layers import state_of
from lth_core.results import LevelResult
from lth_core.train.narrow import narrowed

STRUCTURED = {
    "mlp": "neurons",
    "conv-2": "channels",  # its last channels are flattened
    "resnet-8": "channels",  # residual stream, batch norm
}


class Whole(Trainer):
    """A trainer that keeps the removed channels, at 0."""

    @staticmethod
    def _may_be_narrow(job: Job) -> bool:
        return False


def spec_of(name: str, steps: int = 3, **fields: object) -> TicketSpec:
    prune = {"when": "before", "score": "random", "scope": "global", "budget": {"flops": 0.5}}
    return TicketSpec(
        data=DataSpec(validation=100),
        model=ModelSpec(name=name, **({} if name == "mlp" else {"width": 0.25})),
        train=TrainSpec(optimizer="sgd", lr=1e-3, momentum=0.9, weight_decay=1e-3, batch_size=32,
                        steps=steps, evaluate_every=steps),
        prune=PruneSpec(structure=STRUCTURED[name], **prune), levels=1,
        branches=("ticket", "scratch_e"), **fields,
    )  # fmt: skip


def level(spec: TicketSpec, trainer: Trainer) -> LevelResult:
    *_, last = find_tickets(spec, trainer)
    return last


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURED)
def test_result_is_that_of_the_whole_network_under_its_mask(name: str) -> None:
    narrow, whole = Trainer(), Whole()
    found, expected = (level(spec_of(name), trainer) for trainer in (narrow, whole))
    for branch, result in found.results.items():
        state, mask = narrow.final(result.job)
        other, other_mask = whole.final(expected.results[branch].job)
        assert all(torch.equal(m, other_mask[n]) for n, m in mask.items())
        assert not all(bool(m.all()) for m in mask.values())
        for parameter, _ in narrow.model(result.job).named_parameters():
            assert torch.allclose(state[parameter], other[parameter], rtol=1e-4, atol=1e-5)
        removed = mask | narrow.removed_with(result.job, mask)
        assert all(not bool(state[n][~m].any()) for n, m in removed.items())
        assert result.training.ticket_digest == expected.results[branch].training.ticket_digest


def test_network_that_is_trained_has_only_the_kept_channels() -> None:
    trainer, spec = Trainer(), spec_of("conv-2")
    job = level(spec, trainer).results["ticket"].job
    mask = trainer.mask(job.mask, job)
    state = trainer.masked(job, trainer.start(job), mask)
    channels = trainer.channels(job)
    narrow = narrowed(trainer.network(job, state), channels, state, mask)
    assert narrow is not None
    left = {name: int(stays.sum()) for name, stays in kept_channels(channels, mask).items()}
    shapes = {name: tuple(p.shape) for name, p in narrow.model.named_parameters()}
    assert shapes["conv1.weight"][0] == shapes["conv2.weight"][1] == left["conv1.weight"] < 16
    assert all(bool(m.all()) and m.shape == shapes[name] for name, m in narrow.mask.items())
    trained = sum(p.numel() for p in narrow.model.parameters())
    assert trained == level(spec, trainer).records[0]["kept_parameters"]


def test_network_that_loses_nothing_or_a_whole_layer_is_trained_as_it_is() -> None:
    trainer, spec = Trainer(), spec_of("mlp")
    job = level(spec, trainer).results["ticket"].job
    model = trainer.model(job)
    channels, state = channels_of(model, (1, 8, 8)), state_of(model)
    full = {n: torch.ones_like(m) for n, m in trainer.mask(job.mask, job).items()}
    assert narrowed(model, channels, state, full) is None
    without = {n: m & (n != "fc1.weight") for n, m in full.items()}
    assert narrowed(model, channels, state, without) is None
