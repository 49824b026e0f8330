"""What the parsers are given valid ones of: the files of a real, tiny search."""

import copy
import json
from functools import cache
from typing import Any

import pytest
from torch import nn

from lth_core import TicketSpec, Trainer, find_tickets
from lth_core.errors import PreemptedError
from lth_core.jobs.recipes import Job
from lth_core.masks import ones
from lth_core.spec import ModelSpec, TrainSpec, canonical_json
from lth_core.store import Store
from lth_core.train.batches import Order
from lth_core.train.loop import Task
from lth_core.train.masking.base import Fixed

SPEC = TicketSpec(
    model=ModelSpec(widths=(4,)), train=TrainSpec(steps="6it", evaluate_every="3it"), levels=1
)


@cache
def search() -> tuple[Store, list[bytes]]:
    """A real search's store, with a checkpoint, and its ticket files."""
    store = Store()
    trainer = Trainer(store)
    trainer.ending.set()
    with pytest.raises(PreemptedError):
        next(iter(find_tickets(SPEC, trainer)))
    (key,) = store.digests("checkpoints")
    halfway = {
        found.path: store.files.read(found.path)
        for found in store.files.files(f"checkpoints/{key}")
    }
    levels = list(find_tickets(SPEC, Trainer(store)))
    for path, content in halfway.items():
        assert content
        store.files.write(path, content)
    return store, [level.ticket.to_bytes() for level in levels]


def file_of(kind: str, file: str) -> bytes:
    store, _ = search()
    (path,) = [
        found.path
        for found in store.files.files(f"{kind}/{store.digests(kind)[0]}")
        if file in found.path
    ]
    content = store.files.read(path)
    assert content is not None
    return content


@cache
def dense() -> Job:
    return next(iter(find_tickets(SPEC, Trainer(search()[0], frozen=True)))).results["dense"].job


@cache
def network() -> nn.Module:
    return Trainer(search()[0]).model(dense())


def task() -> Task:
    """The dense run, about to begin."""
    trainer, job = Trainer(search()[0]), dense()
    model = copy.deepcopy(network())
    order = Order(examples=100, batch_size=10, seed=0, run="0")
    return Task(
        model=model, masking=Fixed(model, ones(model)), data=trainer.data(job), spec=job.train,
        order=order, first=job.first, last=job.last,
    )  # fmt: skip


def as_json(said: bytes) -> dict[str, Any]:
    """What is JSON of it, as a store's entry can say it."""
    try:
        meta = json.loads(said)
        canonical_json(meta)
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}
