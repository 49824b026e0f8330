"""Measures of trainings on the device: stability, predictors, latency, costs."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from small import DIGITS, PIXELS, dense_job, records

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, models
from lth_core.models.latency import device_name, latency

LSTM = replace(DIGITS, model=ModelSpec(name="lstm", width=0.25))
VIT = replace(PIXELS, model=ModelSpec(name="vit-tiny", width=0.25, depth=1))
NETWORKS = {"mlp": DIGITS, "resnet-8": PIXELS, "vit-tiny": VIT, "lstm": LSTM}


@pytest.mark.parametrize("name", [
    "mlp", "lstm", *(pytest.param(name, marks=pytest.mark.long) for name in ("resnet-8", "vit-tiny")),
])  # fmt: skip
def test_predictors_are_near_those_of_the_cpu(device: str, name: str) -> None:
    spec = replace(NETWORKS[name], predictors=True, rewind=2, levels=1)
    spec = replace(spec, train=replace(spec.train, steps=4, evaluate_every=4))
    cpu, other = (records(spec, Trainer(device=each))[0] for each in ("cpu", device))
    for column in ("rewind_loss", "rewind_gradient_norm", "rewind_distance", "rewind_curvature"):
        assert other[column] == pytest.approx(cpu[column], rel=0.1), column
    assert other["rewind_cosine"] == pytest.approx(cpu["rewind_cosine"], abs=0.01)
    assert other["rewind_sign_agreement"] == pytest.approx(cpu["rewind_sign_agreement"], abs=0.02)


@pytest.mark.parametrize(("spec", "renormalize"), [
    pytest.param(DIGITS, False, id="mlp"),
    pytest.param(PIXELS, True, id="resnet-8, renormalized", marks=pytest.mark.long),
])  # fmt: skip
def test_barriers_are_near_those_of_the_cpu(
    device: str, spec: TicketSpec, renormalize: bool
) -> None:
    stability = replace(spec.stability, points=3, renormalize=renormalize)
    spec = replace(spec, branches=("ticket", "twin"), stability=stability)
    cpu, other = (
        [row for row in records(spec, Trainer(device=each)) if row["branch"] == "twin"]
        for each in ("cpu", device)
    )
    for ours, expected in zip(other, cpu, strict=True):
        for column in ("test_barrier", "train_barrier"):
            assert ours[column] == pytest.approx(expected[column], abs=0.15)


def test_travel_and_signs_are_near_those_of_the_cpu(device: str) -> None:
    cpu, other = (records(DIGITS, Trainer(device=each))[-1] for each in ("cpu", device))
    for column in ("travel", "travel_inside", "travel_outside", "sign_agreement"):
        assert other[column] == pytest.approx(cpu[column], rel=0.05), column


def test_latency_is_measured(device: str, request: pytest.FixtureRequest) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("a GPU by label has no clock")
    networks = [
        models.template(ModelSpec(name="resnet-8", width=width), (3, 16, 16), 4)
        for width in (1, 0.25)
    ]
    found = latency(networks, (3, 16, 16), device=device, seconds=0.1)
    assert all(0 < milliseconds < 1000 for milliseconds in found)
    assert device_name(torch.device(device))


@pytest.mark.skipif(not find_spec("torch_pruning"), reason="torch-pruning is not installed")
def test_structure_within_a_budget_of_milliseconds_on_the_gpu(gpu: str) -> None:
    trainer, job = Trainer(device=gpu), dense_job(PIXELS)
    whole = trainer.channel_latency(job, {})({}, "cuda")
    spec = replace(PIXELS, prune=PruneSpec(structure="channels", scope="global", when="before",
                                           budget={"cuda_latency_ms": 2 * whole}))  # fmt: skip
    assert records(spec, trainer)[-1]["density"] > 0


@pytest.mark.long
@pytest.mark.skipif(not find_spec("torch_pruning"), reason="torch-pruning is not installed")
def test_costs_of_a_structure_are_those_of_the_cpu(device: str) -> None:
    spec: TicketSpec = replace(
        PIXELS, prune=PruneSpec(structure="channels", scope="layerwise", fraction=0.5)
    )
    cpu, other = (records(spec, Trainer(device=each))[-1] for each in ("cpu", device))
    for column in ("train_flops", "search_flops", "flops", "parameters", "kept_parameters"):
        assert other[column] == cpu[column]
