"""Checkpoints: the state of an interrupted training, and its storage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.errors import CorruptEntryError
from lth_core.jobs.recipes import Job
from lth_core.store import Entry, Store
from lth_core.store.decode import check, decoding, read_entry
from lth_core.train.training import Curves

KIND, BLOB = "checkpoints", "run.safetensors"

logger = logging.getLogger("lth")

CHECKPOINT_EVERY = 300.0
"""Default seconds between checkpoints."""

LOSS_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class _Meta(TypedDict):
    step: int
    curves: dict[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A run after ``step`` steps, counted from the start of the dense run's schedule.

    tensors: ``model/...``, ``optimizer/...`` and ``masking/...`` by part of the run, and
        ``losses`` (steps since the last evaluation,).
    seconds: training time so far.
    """

    step: int
    tensors: dict[str, Tensor]
    curves: Curves
    seconds: float

    def part(self, name: str) -> dict[str, Tensor]:
        """Tensors of one part, in the shapes of its weights or masks, by their own names."""
        start = f"{name}/"
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def store_checkpoint(store: Store, job: Job, checkpoint: Checkpoint) -> None:
    """Store a checkpoint, replacing the job's last. If interrupted, one of the two is whole.

    Raises:
        StoreError: no space left, no permission, ...
    """
    replaced = _blob_files(store, job)
    meta = {
        "step": checkpoint.step,
        "curves": asdict(checkpoint.curves),
        "seconds": checkpoint.seconds,
    }
    tensors = {name: value.contiguous() for name, value in checkpoint.tensors.items()}
    store.put(KIND, job.digest, meta, {BLOB: save(tensors)})
    for path in replaced - _blob_files(store, job):
        store.files.delete(path)


def checkpoint_step(store: Store, job: Job) -> int | None:
    """Step of the job's checkpoint; None where it has none."""
    return read_entry(store, KIND, job.digest, lambda entry: _meta(entry)["step"])


def delete_checkpoint(store: Store, job: Job) -> None:
    """Delete the checkpoint of a finished job."""
    store.delete(KIND, job.digest)


def load_checkpoint(store: Store, job: Job) -> Checkpoint | None:
    """The checkpoint of an interrupted training of the job; None where it is missing or corrupt."""
    try:
        with decoding(f"{KIND}/{job.digest}"):
            entry = store.get(KIND, job.digest)
            if entry is None:
                return None
            meta, tensors = _meta(entry), load(entry.blob(BLOB))
            if tensors["losses"].dtype not in LOSS_TYPES:
                raise TypeError(f"losses must be floats, but are {tensors['losses'].dtype}")
            return Checkpoint(
                step=meta["step"], tensors=tensors, curves=Curves.from_json(meta["curves"]),
                seconds=float(meta["seconds"]),
            )  # fmt: skip
    except CorruptEntryError as error:
        logger.warning("store: %s; the training begins anew", error)
        delete_checkpoint(store, job)
        return None


def _meta(entry: Entry) -> _Meta:
    check(entry.meta, _Meta)
    return cast("_Meta", entry.meta)


def _entry(store: Store, job: Job) -> Entry | None:
    try:
        return store.get(KIND, job.digest)
    except CorruptEntryError:
        return None


def _blob_files(store: Store, job: Job) -> set[str]:
    entry = _entry(store, job)
    blobs = entry.blobs.values() if entry else ()
    return {f"{KIND}/{job.digest}/{blob['file']}" for blob in blobs}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's state by ``<number of the parameter>/<name>``.

    Moments have the shape of their parameter, step counts ().
    """
    return {
        f"{number}/{name}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load an optimizer's state from the output of `optimizer_tensors`, in the same shapes."""
    parameters = list(_parameters(optimizer))
    states: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition("/")
        parameter = parameters[int(number)]
        # A moment gets its parameter's memory layout. The fused kernels read all on one device.
        is_moment = value.shape == parameter.shape
        like = parameter if is_moment else value.to(parameter.device)
        copy = torch.empty_like(like).copy_(value)
        states.setdefault(int(number), {})[name] = copy.detach()
    for position, state in states.items():
        optimizer.state[parameters[position]] = state


def moment_fits(key: str, value: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether a tensor of `optimizer_tensors` fits its parameter.

    Args:
        value: a moment in the parameter's shape, or a step count, ().
        parameters: the optimizer's parameters, of any shape.
    """
    number = key.partition("/")[0]
    if not number.isdecimal() or int(number) >= len(parameters):
        return False
    parameter = parameters[int(number)]
    # A step count has the weights' type too.
    return value.shape in (torch.Size(), parameter.shape) and value.dtype == parameter.dtype


def shapes_and_types(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor, which may have any, by name."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def cpu_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, in the same shapes, which further training does not change."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()
    }


def _parameters(optimizer: Optimizer) -> Iterable[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]
