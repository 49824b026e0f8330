"""Studies and records of their trials, kept in the store: what reports are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from safetensors.numpy import load

from lth_core.errors import CorruptEntryError
from lth_core.masks import layer_of
from lth_core.spec import SCHEMA
from lth_core.store import Store
from lth_core.training import Curves, Training
from lth_core.verdict import Verdict, verdicts
from sweeps.config import Study
from sweeps.overlaps import PackedMask, packed_mask
from sweeps.plan import Trial
from sweeps.reader import parse_spec, spec_values

STUDIES, TRIALS, MASK = "studies", "trials", "mask.safetensors"

Record = dict[str, Any]


def register(store: Store, study: Study) -> None:
    """Let a store know a study that is swept into it: what it needs, `lth store gc` leaves."""
    about = {"schema": SCHEMA, "study": study.model_dump(mode="json")}
    store.put(STUDIES, f"{study.name}.{study.digest()}", about)


def save_records(
    store: Store, study: str, study_digest: str, trial: Trial, records: list[Record]
) -> None:
    """Keep what a trial has yielded so far, in place of what it had yielded before."""
    about = {
        "study": study,
        "study_digest": study_digest,
        "fields": trial.fields,
        "spec": spec_values(trial.spec),
        "records": records,
    }
    store.put(TRIALS, record_key(study, trial), about)


def record_key(study: str, trial: Trial) -> str:
    """The entry of a trial's records."""
    return f"{study}.{trial.digest}"


def load_records(store: Store, study: str, trials: Iterable[Trial]) -> list[Record]:
    """The records of trials, in their order; of a trial that has none, nothing."""
    found: list[Record] = []
    for trial in trials:
        about = _about(store, record_key(study, trial))
        found += about["records"] if about else []
    return found


def every_trial(store: Store) -> Iterator[dict[str, Any]]:
    """What is kept of each trial of any study."""
    for key in store.digests(TRIALS):
        if about := _about(store, key):
            yield about


def searched_trials(store: Store, study: Study) -> list[Trial]:
    """The trials that an adaptive search has made so far."""
    return [
        Trial(about["fields"], parse_spec(about["spec"]))
        for about in every_trial(store)
        if about["study_digest"] == study.digest()
    ]


def with_verdicts(
    records: list[Record], axes: list[str], tolerance: float | None
) -> tuple[list[Record], list[Verdict]]:
    """The records, each ticket's with its cell's verdict, and the verdicts."""
    found = verdicts(records, axes, tolerance)
    names = [axis for axis in axes if axis != "seed"]
    word = {(repr(list(v.cell.values())), v.level): v.verdict for v in found}
    return [
        {
            **record,
            "verdict": word.get((repr([record.get(n) for n in names]), record["level"]))
            if record["branch"] == "ticket"
            else None,
        }
        for record in records
    ], found


def load_curves(store: Store, training_digest: str) -> Curves | None:
    """A training's learning curves, or None where the store has lost them."""
    try:
        entry = store.get("trainings", training_digest)
    except CorruptEntryError:
        return None
    return Training.from_json(entry.meta).curves if entry else None


def load_mask(store: Store, training_digest: str) -> PackedMask | None:
    """The mask that a training was under, or None where the store has lost it."""
    try:
        entry = store.get("trainings", training_digest)
        if entry is None or MASK not in entry.blobs:
            return None
        bits = load(entry.blob(MASK))
    except CorruptEntryError:
        return None
    layers = Training.from_json(entry.meta).layers
    named = {name.removeprefix("mask/"): packed for name, packed in bits.items()}
    return packed_mask({n: (packed, layers[layer_of(n)].weights) for n, packed in named.items()})


def _about(store: Store, key: str) -> dict[str, Any] | None:
    try:
        entry = store.get(TRIALS, key)
    except CorruptEntryError:
        return None
    return entry.meta if entry else None
