"""Latencies of a study's networks: measured after a sweep, stored, and columns of its records.

Beside trainings a latency would be that of a busy machine. So networks are measured when all trials
have ended, one at a time, in the driver's process. Each structure is measured once, however many
seeds found it, and is stored at once, so that an interrupted measurement goes on where it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from lth_core import data
from lth_core.columns import Record
from lth_core.errors import SpecError
from lth_core.measures.latency import Structure, StructureLatency, structure_latency
from lth_core.models.latency import BATCH_SIZE, THREADS, device_name
from lth_core.parallel import map_in_threads
from lth_core.spec.prune_base import CHANNELS, GATES
from lth_core.store import Entry, Store
from lth_core.store.decode import check, read_entry
from sweeps.plan.plan import Trial
from sweeps.store.records import load_records
from sweeps.studies.schema import Study

LATENCIES = "latencies"
"""Kind of store entry."""


def measure_latencies(
    study: Study, trials: Sequence[Trial], store: Store, console: Console
) -> list[str]:
    """Measure the latencies that the store lacks for this device.

    Call it when nothing is trained on this machine.

    Returns:
        A note on each structure that cannot be measured.
    """
    device = torch.device("cuda" if study.resources.gpu and torch.cuda.is_available() else "cpu")
    name, notes, measured = device_name(device), list[str](), 0
    missing = _missing(_structures(study, trials, store), store, name)
    with _bar(console) as bar:
        for structure, digests in bar.track(missing, description="measuring latency"):
            bar.refresh()
            try:
                latency = structure_latency(structure, device)
            except SpecError as error:
                notes.append(str(error))
                continue
            for digest in digests:
                save_latency(store, digest, latency)
            measured += 1
    if measured:
        on = f"batch {BATCH_SIZE}, {THREADS} thread of {name}" if device.type == "cpu" else name
        console.print(f"latency of {measured} structure{'s'[: measured > 1]} measured: {on}")
    return list(dict.fromkeys(notes))


def _structures(study: Study, trials: Sequence[Trial], store: Store) -> dict[Structure, list[str]]:
    """Structures of the trainings in the trials' records, with the trainings' digests."""
    found = defaultdict[Structure, list[str]](list)
    for trial in _structured(trials):
        models = {job.digest: job.model for job in trial.jobs()}
        _, shape, classes = data.outline(trial.spec.data)
        for row in load_records(store, study.name, [trial]):
            outputs = tuple(row.get("layer_outputs", {}).items())
            model = models.get(row["training_digest"])
            known = outputs and all(count is not None for _, count in outputs)
            if row["branch"] != GATES and model and known:
                structure = Structure(
                    model=model, dense=trial.spec.model, shape=shape, classes=classes,
                    outputs=outputs,
                )  # fmt: skip
                found[structure].append(row["training_digest"])
    return found


def _missing(
    structures: Mapping[Structure, Sequence[str]], store: Store, device: str
) -> list[tuple[Structure, list[str]]]:
    """Structures that were not measured on a device, with the digests of their trainings.

    Where another study measured a structure by some of its trainings, the others get its latency.
    """
    every = (digest for digests in structures.values() for digest in digests)
    stored, missing = load_latencies(store, every), list[tuple[Structure, list[str]]]()
    for structure, digests in structures.items():
        known = {d: each for d in digests if (each := stored[d]) and each["device"] == device}
        without = list(dict.fromkeys(d for d in digests if d not in known))
        if not known:
            missing.append((structure, without))
            continue
        for digest in without:
            save_latency(store, digest, next(iter(known.values())))
    return missing


def _bar(console: Console) -> Progress:
    """A bar on a terminal that no thread redraws: that would take time from what is measured."""
    return Progress(
        TextColumn("{task.description}", markup=False), MofNCompleteColumn(),
        console=console, auto_refresh=False, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


def _structured(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that remove channels from their networks."""
    return [trial for trial in trials if trial.spec.prune.structure in CHANNELS]


# Columns of records


def with_latencies(
    records: Sequence[Record], trials: Iterable[Trial], store: Store
) -> list[Record]:
    """The records, with the columns of latency in those of trials that remove channels."""
    names = {trial.id for trial in _structured(trials)}
    measured = load_latencies(
        store, (row["training_digest"] for row in records if row["trial"] in names)
    )
    return [
        {**row, **_columns(measured[row["training_digest"]])} if row["trial"] in names else row
        for row in records
    ]


def _columns(latency: StructureLatency | None) -> Record:
    return {
        "latency_ms": latency and latency["latency_ms"],
        "dense_latency_ms": latency and latency["dense_latency_ms"],
        "latency_device": latency and latency["device"],
    }


# Entries of the store


def save_latency(store: Store, training_digest: str, latency: StructureLatency) -> None:
    """Store the latency of a training's network, in place of one on another device."""
    store.put(LATENCIES, training_digest, dict(latency))


def load_latencies(
    store: Store, training_digests: Iterable[str]
) -> dict[str, StructureLatency | None]:
    """The latency of each training's network; None where none was measured."""
    digests = list(dict.fromkeys(training_digests))
    found = map_in_threads(lambda digest: read_entry(store, LATENCIES, digest, _latency), digests)
    return dict(zip(digests, found, strict=True))


def _latency(entry: Entry) -> StructureLatency:
    check(entry.meta, StructureLatency)
    return StructureLatency(
        latency_ms=entry.meta["latency_ms"], dense_latency_ms=entry.meta["dense_latency_ms"],
        batch_size=entry.meta["batch_size"], threads=entry.meta["threads"],
        device=entry.meta["device"],
    )  # fmt: skip
