"""Faults of a store: every entry and blob is read and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load

from lth_core import ticket
from lth_core.errors import CorruptEntryError, TicketFileError
from lth_core.masks import State, parameter_of
from lth_core.parallel import map_in_threads
from lth_core.store import MANIFEST, Entry, Store
from lth_core.store.kinds import KINDS, Lifetime
from lth_core.train.training import Training


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of an entry."""

    kind: str
    digest: str
    fault: str


def find_faults(store: Store) -> Iterator[Fault]:
    """The first fault of every faulty entry; each is checked again before it is yielded.

    Raises:
        StoreError: the store cannot be read.
    """
    keys = [
        (kind, digest)
        for kind in store.kinds()
        if KINDS[kind].entries
        for digest in store.digests(kind)
    ]
    faults = map_in_threads(lambda key: fault_of(store, *key), keys)
    for key, fault in zip(keys, faults, strict=True):
        # Entries are read ahead, and a sweep may have written this one since.
        if fault and (current := fault_of(store, *key)):
            yield current


def fault_of(store: Store, kind: str, digest: str) -> Fault | None:
    """The fault of an entry, or None.

    A deleted entry has no fault, such as the checkpoint of a finished training. An interrupted
    write of a checkpoint is none: the training starts again, and `lth store gc` deletes the files.
    """
    try:
        entry = store.get(kind, digest)
        if entry is None:
            if KINDS[kind].lifetime is Lifetime.TRAINING or digest not in store.digests(kind):
                return None
            raise CorruptEntryError(f"{kind}/{digest}/{MANIFEST}: is missing")
        tensors: State = {}
        for name in entry.blobs:
            content = entry.blob(name)
            if name.endswith(".safetensors"):
                tensors = {**tensors, **load(content)}
        training = _training(store, kind, digest, entry)
        if training:
            layers = training.layers.items()
            shapes = {parameter_of(name): list(layer.shape) for name, layer in layers}
            _, mask = ticket.unpack(tensors, shapes)
            for name, layer in layers:
                kept = int(mask[parameter_of(name)].sum())
                if kind == "trainings" and kept != layer.kept:
                    raise TicketFileError(f"{name}: must keep {layer.kept} weights, keeps {kept}")
    except CorruptEntryError as error:
        return Fault(kind, digest, str(error))
    except (TicketFileError, SafetensorError) as error:
        return Fault(kind, digest, f"{kind}/{digest}: {error}")
    return None


def _training(store: Store, kind: str, digest: str, entry: Entry) -> Training | None:
    """Training of an entry with masks, whose layers have the masks' shapes."""
    key = entry.meta.get(KINDS[kind].training) if KINDS[kind].training else digest
    training = store.get("trainings", key) if KINDS[kind].masks and key else None
    try:
        return Training.from_json(training.meta) if training else None
    except CorruptEntryError as error:
        raise CorruptEntryError(f"trainings/{key}: {error}") from None
