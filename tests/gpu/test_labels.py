"""The GPU by label finds tensors on the wrong device; each case is a fault that code could have."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from labels import WrongDeviceError, gpu_by_label
from small import DIGITS, PIXELS, dense_job, records
from torch.nn.functional import cross_entropy

from lth_core import PruneSpec, Trainer, data
from lth_core.data import Dataset
from lth_core.data.augment import augment, draws
from lth_core.train import checkpoint
from lth_core.train.loop import Run
from lth_core.train.masking.base import Fixed
from lth_core.train.pack.pack import Pack

CUDA = torch.device("cuda")


def on_gpu() -> Dataset:
    return data.load(PIXELS.data, CUDA)


def mean_on_the_cpu() -> None:
    dataset = replace(on_gpu(), mean=torch.full((3, 1, 1), 95.0))
    dataset.normalize(dataset.train.x)


def mask_on_the_cpu() -> None:
    trainer, job = Trainer(device="cuda"), dense_job(PIXELS)
    masking = Fixed(trainer.network(job, trainer.start(job)), {})
    masking._weights = [p.detach() for p in masking.model.parameters()]
    masking._masks = [torch.ones(w.shape) for w in masking._weights]
    masking.after_step()


def range_without_device() -> None:
    x = on_gpu().train.x[:4]
    draw = draws("crop", 4, torch.Generator()).to("cuda")
    assert augment(x, draw).device.type == "cuda"
    with pytest.MonkeyPatch.context() as patch:
        arange = torch.arange
        patch.setattr(torch, "arange", lambda n, device: arange(n))
        augment(x, draw)


def generator_of_the_cpu() -> None:
    torch.rand(3, generator=torch.Generator(), device="cuda")


def draw_in_place_of_the_cpu() -> None:
    torch.zeros(3, device="cuda").uniform_(generator=torch.Generator())


def numpy_of_the_gpu() -> None:
    on_gpu().train.y.numpy()


def stack_of_both() -> None:
    torch.stack([on_gpu().train.y, torch.zeros(160, dtype=torch.int64)])


def index_on_the_gpu() -> None:
    torch.zeros(200)[on_gpu().train.y]


def labels_on_the_cpu() -> None:
    logits = torch.zeros(8, 4, device="cuda", requires_grad=True)
    cross_entropy(logits, torch.zeros(8, dtype=torch.int64)).backward()


def gradient_on_the_cpu() -> None:
    weight = torch.ones(3, device="cuda", requires_grad=True)
    weight.sum().backward()
    assert weight.grad is not None
    assert weight.grad.device.type == "cuda"
    weight.grad.add_(torch.ones(3))


def step_counts_on_the_cpu() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3, device="cuda"))], fused=True)
    (weight,) = optimizer.param_groups[0]["params"]
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    tensors = checkpoint.cpu_copies(checkpoint.optimizer_tensors(optimizer))
    checkpoint.restore_optimizer(optimizer, tensors)
    optimizer.step()  # lth_core puts them on the device
    optimizer.state[weight]["step"] = tensors["0/step"]
    optimizer.step()


def copied_to_the_cpu() -> None:
    weight = torch.ones(3, device="cuda")
    weight.cpu().add_(1)
    assert weight.tolist() == [1, 1, 1], "`cpu` must copy"
    weight.add_(weight.cpu())


@pytest.mark.parametrize("fault", [
    mean_on_the_cpu, mask_on_the_cpu, range_without_device, generator_of_the_cpu,
    draw_in_place_of_the_cpu, numpy_of_the_gpu, stack_of_both, index_on_the_gpu, labels_on_the_cpu,
    gradient_on_the_cpu, step_counts_on_the_cpu, copied_to_the_cpu,
])  # fmt: skip
@pytest.mark.slow
def test_fault_is_found(fault: Callable[[], None]) -> None:
    with gpu_by_label(), pytest.raises(WrongDeviceError):
        fault()


@pytest.mark.slow
def test_what_a_gpu_allows_is_allowed() -> None:
    with gpu_by_label():
        x, one = torch.ones(4, device="cuda"), torch.tensor(1.0)
        assert (x * one).device == torch.device("cuda", 0)
        assert x[torch.tensor([0, 2])].is_cuda  # an index of the CPU
        x.copy_(torch.zeros(4))
        assert torch.zeros_like(x).is_cuda
        assert x.view(2, 2).t().reshape(-1).is_cuda
        assert x.to("cpu").device.type == "cpu"
        assert x.tolist() == [0, 0, 0, 0]


@pytest.mark.slow
def test_packs_are_captured_on_their_gpu_where_another_is_the_current_one() -> None:
    with gpu_by_label(current=1):
        trainer = Trainer(device="cuda:0")
        jobs = [replace(dense_job(DIGITS), seed=seed) for seed in range(2)]
        runs = [Run(trainer._prepare(job).task) for job in jobs]
        for _ in Pack(runs):
            pass
        assert trainer.probe(jobs[0], 0.01) > 0
    alone = Trainer(device="cpu")
    for run, job in zip(runs, jobs, strict=True):
        assert run.curves.train_loss == pytest.approx(
            alone([job])[0].training.curves.train_loss, rel=1e-3
        )


@pytest.mark.slow
@pytest.mark.parametrize("settings", [
    {"predictors": True, "rewind": 4, "branches": ("ticket", "twin")},
    {"prune": PruneSpec(when="before", score="synflow", rounds=2)},
    {"prune": PruneSpec(when="never", score="edge-popup", fraction=0.5)},
], ids=["predictors", "synflow", "edge-popup"])  # fmt: skip
def test_search_needs_no_float64_on_mps(settings: dict[str, Any]) -> None:
    spec = replace(DIGITS, **settings)
    with gpu_by_label():
        rows = records(spec, Trainer(device="mps"))
    assert rows[-1]["final_test_accuracy"] == pytest.approx(
        records(spec, Trainer(device="cpu"))[-1]["final_test_accuracy"], abs=0.01
    )
