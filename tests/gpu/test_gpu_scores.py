"""Scores and masks of networks on the device, against those of the CPU."""

from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from typing import Any

import pytest
import torch
from small import DIGITS, PIXELS, dense_job

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, masks
from lth_core.masks import Mask
from lth_core.prune import SCORES, Scores, lowest, prune
from lth_core.prune.network import PrunableNetwork, from_model
from lth_core.prune.scores import scores_of
from lth_core.seeds import generator
from lth_core.train.masking.registry import LEARN
from lth_core.train.precision import arithmetic

OF_CHANNELS = ("slimming", "taylor", "gates")
BY_PASSES = ("snip", "grasp", "synflow", "taylor")
"""Scores that run the network; the others are the same to the bit on all devices."""

NETWORKS: dict[str, TicketSpec] = {
    "mlp": DIGITS,
    "resnet-8": PIXELS,
    "vit-tiny": replace(PIXELS, model=ModelSpec(name="vit-tiny", width=0.25, depth=2)),
    "lstm": replace(PIXELS, model=ModelSpec(name="lstm", width=0.25, depth=2)),
}


def network(spec: TicketSpec, device: str, **settings: Any) -> PrunableNetwork:
    """The untrained network of a spec as a score needs it."""
    trainer, job = Trainer(device=device), dense_job(spec)
    start = trainer.start(job)
    mask = trainer.mask(job.mask, job)
    return trainer.prunable_network(start, mask, start, job, PruneSpec(**settings))


def scored(spec: TicketSpec, device: str, name: str, **settings: Any) -> Scores:
    """Scores of a spec's untrained network, computed as `Trainer.mask` has them computed."""
    with arithmetic("fp32", torch.device(device)):
        return scores_of(network(spec, device, **settings), name)


def assert_close(ours: masks.State, expected: masks.State, rel: float) -> None:
    """Check values against others, by the largest of each layer: small ones are sums of large ones."""
    for name, value in expected.items():
        assert ours[name].device.type == "cpu"
        assert float((ours[name] - value).abs().max()) <= rel * float(value.abs().max()), name


@pytest.mark.parametrize(("score", "net"), [
    *product((name for name in SCORES if name not in (*OF_CHANNELS, *BY_PASSES)), ["resnet-8"]),
    *product(BY_PASSES[:3], NETWORKS),
])  # fmt: skip
def test_scores_are_close_to_those_of_the_cpu(device: str, score: str, net: str) -> None:
    cpu, other = (scored(NETWORKS[net], each, score, when="before") for each in ("cpu", device))
    assert_close(other, cpu, 0.02 if score in BY_PASSES else 0)


@pytest.mark.long
@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("score", BY_PASSES[:3])
def test_scores_in_both_modes_of_batch_norm_and_recurrent_layers(
    device: str, score: str, statistics: str
) -> None:
    """cuDNN has no backward pass of recurrent layers in evaluation mode."""
    for net in ("resnet-8", "lstm"):
        settings = {"when": "before", "score": score, "statistics": statistics}
        cpu, other = (scored(NETWORKS[net], each, score, **settings) for each in ("cpu", device))
        assert_close(other, cpu, 0.02)


@pytest.mark.parametrize("score", OF_CHANNELS[:2])
@pytest.mark.skipif(not find_spec("torch_pruning"), reason="torch-pruning is not installed")
def test_scores_of_channels_are_close_to_those_of_the_cpu(device: str, score: str) -> None:
    settings = {"when": "before", "structure": "channels", "scope": "global", "score": score}
    cpu, other = (scored(PIXELS, each, score, **settings) for each in ("cpu", device))
    assert_close(other, cpu, 0.02)


def pruned(spec: TicketSpec, device: str, **settings: Any) -> Mask:
    found = network(spec, device, **settings)
    with arithmetic("fp32", torch.device(device)):
        return prune(found, found.spec, generator(0, "ties"))


@pytest.mark.parametrize("settings", [
    {},
    {"scope": "global"},
    {"scope": "erk"},
    {"when": "before", "score": "random"},
    {"when": "before", "score": "magnitude", "scope": "like:random"},
    {"structure": "2:4", "fraction": 0.5},
], ids=str)  # fmt: skip
def test_first_mask_of_equal_weights_is_that_of_the_cpu(device: str, settings: Any) -> None:
    for spec in (DIGITS, PIXELS):
        settings = {"fraction": 0.4, **settings}
        assert masks.digest(pruned(spec, device, **settings)) == masks.digest(
            pruned(spec, "cpu", **settings)
        )


@pytest.mark.parametrize("score", [
    BY_PASSES[0], *(pytest.param(name, marks=pytest.mark.long) for name in BY_PASSES[1:3]),
])  # fmt: skip
def test_first_mask_by_a_pass_keeps_as_many_and_mostly_the_same(device: str, score: str) -> None:
    settings = {"when": "before", "score": score, "fraction": 0.6, "rounds": 3, "scope": "global"}
    cpu, other = (pruned(PIXELS, each, **settings) for each in ("cpu", device))
    assert masks.kept(other) == masks.kept(cpu)
    assert masks.overlap(cpu, other) > 0.98


@pytest.mark.skipif(not find_spec("torch_pruning"), reason="torch-pruning is not installed")
@pytest.mark.parametrize("score", ["magnitude", "slimming", "taylor"])
def test_channels_within_a_budget_are_as_many_as_on_the_cpu(device: str, score: str) -> None:
    settings = {"when": "before", "structure": "channels", "scope": "global", "score": score,
                "budget": {"flops": 0.5}}  # fmt: skip
    cpu, other = (pruned(PIXELS, each, **settings) for each in ("cpu", device))
    assert masks.kept(other) == pytest.approx(masks.kept(cpu), rel=0.1)
    assert masks.kept(other) < masks.total(other)


def test_choice_of_exactly_k_on_the_device_breaks_ties_as_on_the_cpu(device: str) -> None:
    values = torch.randint(0, 9, (1000,), generator=generator(0, "x")).float()
    for k in (0, 1, 500, 1000):
        chosen = lowest(values.to(device), k, generator(1, "ties"))
        assert chosen.device.type == torch.device(device).type
        assert chosen.cpu().equal(lowest(values, k, generator(1, "ties")))


@pytest.mark.parametrize("settings", [
    {"when": "before", "score": "snip", "scope": "global"},
    {"when": "before", "score": "random"},
    {"structure": "2:4", "fraction": 0.5},
], ids=str)  # fmt: skip
def test_network_of_a_notebook_on_the_device_is_pruned(device: str, settings: Any) -> None:
    trainer, job = Trainer(device=device), dense_job(DIGITS)
    dataset = trainer.data(job)
    model = trainer.network(job, trainer.start(job))
    spec = PruneSpec(**settings)
    x, y = dataset.normalize(dataset.train.x[:50]), dataset.train.y[:50]
    mask = prune(from_model(model, x, y, spec=spec), spec, generator(0, "ties"))
    assert masks.kept(mask) < masks.total(mask)


def test_every_score_of_a_study_file_is_tested_here() -> None:
    known = {*SCORES, *LEARN}
    assert known == {
        *(name for name in SCORES if name not in OF_CHANNELS), *OF_CHANNELS[:2],
        "gates", "edge-popup", "supermask",  # in test_gpu_maskings.py
    }  # fmt: skip
