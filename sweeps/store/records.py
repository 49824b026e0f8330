"""Studies and records of their trials in the store, from which reports are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from safetensors.numpy import load

from lth_core.analysis.groups import key_of, values_of
from lth_core.analysis.overlaps import PackedMask, packed_mask
from lth_core.analysis.verdict import Verdict, verdicts
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from lth_core.data import DATASETS
from lth_core.masks import layer_of
from lth_core.parallel import map_in_threads
from lth_core.resolve import Pins
from lth_core.spec import SCHEMA, TicketSpec
from lth_core.store import Entry, Store
from lth_core.store.decode import check, read_entry
from lth_core.train.archive import Archive
from lth_core.train.training import Curves, Training
from sweeps.plan.plan import Trial
from sweeps.plan.recorded import TRIALS as TRIALS
from sweeps.plan.recorded import checked_meta, read_trial
from sweeps.plan.tickets import study_tickets
from sweeps.studies.pins import pins_from_json, pins_to_json, study_pins
from sweeps.studies.reader import parse_stored_spec, spec_values
from sweeps.studies.schema import Study, VerdictFields

STUDIES, MASK = "studies", "mask.safetensors"


def register(store: Store, study: Study) -> None:
    """Store a study's description, so that `lth store gc` keeps the entries that the study needs,
    and the tickets from elsewhere that its trials start from.

    Raises:
        SpecError: a name in the study cannot be imported, or its code fails.
        DataError: data are absent or damaged.
    """
    pins = study_pins(study)
    for name, ticket in study_tickets(study).items():
        pins.tickets[name] = ticket.digest
        Archive(store).put_ticket(ticket)
    description = {
        "schema": SCHEMA,
        "study": study.model_dump(mode="json"),
        # Order matters in two places: samples are drawn in the order of the space, and the later of
        # two axes that set one field overrides the other. An older store's JSON has sorted keys.
        "order": {"axes": list(study.axes), "search.space": list(study.search.space)},
        "pins": pins_to_json(pins),
        "rules": [asdict(rule) for rule in swept_rules(store, study)],
    }
    store.put(STUDIES, f"{study.name}.{study.digest()}", description)


def swept_pins(store: Store, study: Study) -> Pins | None:
    """Pins of a study as it was last swept; None where its store does not have them."""

    def read(entry: Entry) -> Pins | None:
        return pins_from_json(entry.meta["pins"]) if "pins" in entry.meta else None

    return read_entry(store, STUDIES, f"{study.name}.{study.digest()}", read)


def swept_rules(store: Store, study: Study) -> list[VerdictRule]:
    """The study's rule of verdicts, and others with which sweeps of its name began, each once."""
    keys = [key for key in store.digests(STUDIES) if key.rpartition(".")[0] == study.name]
    earlier = [rules for key in keys if (rules := read_entry(store, STUDIES, key, _rules))]
    return list(dict.fromkeys([study.verdict.rule(), *chain(*earlier)]))


def _rules(entry: Entry) -> list[VerdictRule]:
    rules = entry.meta.get("rules") or [entry.meta["study"].get("verdict", {})]
    check(rules, list[dict[str, Any]], "rules")
    return [VerdictFields(**rule).rule() for rule in rules]


def save_records(
    store: Store, study: str, study_digest: str, trial: Trial, records: list[Record]
) -> None:
    """Store a trial's records so far, in place of its earlier ones."""
    content = {
        "study": study,
        "study_digest": study_digest,
        "fields": trial.fields,
        "spec": spec_values(trial.spec),
        "records": records,
    }
    store.put(TRIALS, record_key(study, trial), content)


def record_key(study: str, trial: Trial) -> str:
    """Key of the entry with a trial's records."""
    return f"{study}.{trial.digest}"


def load_records(store: Store, study: str, trials: Iterable[Trial]) -> list[Record]:
    """Records of trials, in the order of the trials; a trial may have none.

    Axis values are those of the trials, not of the sweep that stored the records: since then, the
    study may have got an axis, or another spelling of a value (`5it`, `25%`).
    """
    trials = list(trials)
    keys = [record_key(study, trial) for trial in trials]
    entries = map_in_threads(partial(read_trial, store), keys)
    return [
        with_axis_values(row, trial)
        for trial, content in zip(trials, entries, strict=True)
        if content
        for row in content["records"]
    ]


def with_axis_values(record: Record, trial: Trial) -> Record:
    """The record with the trial's value of each axis, by dotted field."""
    return {**record, **trial.fields, "seed": trial.spec.seed}


def searched_trials(store: Store, study: Study) -> list[Trial]:
    """The trials that an adaptive search has made so far, with the code and data of its sweep."""
    digest, pins = study.digest(), swept_pins(store, study)

    def read(entry: Entry) -> Trial | None:
        content = checked_meta(entry)
        if content["study_digest"] != digest:
            return None
        return Trial(content["fields"], parse_stored_spec(content["spec"]))

    keys = [key for key in store.digests(TRIALS) if key.rpartition(".")[0] == study.name]
    trials = map_in_threads(lambda key: read_entry(store, TRIALS, key, read), keys)
    return [trial for trial in trials if trial and (pins is None or _is_of(pins, trial.spec))]


def _is_of(pins: Pins, spec: TicketSpec) -> bool:
    """Whether a resolved spec has the pinned code and data, where it names the user's own."""
    known = {*pins.sources.values(), *(pin.fingerprint for pin in pins.data.values())}
    own = {
        part.fingerprint
        for part, is_own in (
            (spec.data, spec.data.name not in DATASETS),
            (spec.model, ":" in spec.model.name),
            (spec.prune, ":" in spec.prune.score),
        )
        if is_own
    }
    return own <= known


def with_verdicts(
    records: list[Record], axes: list[str], rule: VerdictRule
) -> tuple[list[Record], list[Verdict]]:
    """The records, with the verdict of their cell on tickets, and all verdicts."""
    cell_verdicts = verdicts(records, axes, rule)
    words = {key_of([v.level, *v.cell.values()]): v.verdict for v in cell_verdicts}
    place = values_of(["level", *(axis for axis in axes if axis != "seed")])
    return [
        {
            **record,
            "verdict": words.get(key_of(place(record))) if record["branch"] == "ticket" else None,
        }
        for record in records
    ], cell_verdicts


def load_curves(store: Store, training_digest: str) -> Curves | None:
    """A training's learning curves, or None where the store has lost them."""
    return read_entry(
        store, "trainings", training_digest, lambda entry: Training.from_json(entry.meta).curves
    )


def load_start(store: Store, training_digest: str) -> float | None:
    """Start of a training in seconds since 1970, or None where the store has lost it."""

    def read(entry: Entry) -> float:
        training = Training.from_json(entry.meta)
        return training.finished_at - training.seconds

    return read_entry(store, "trainings", training_digest, read)


def load_mask(store: Store, training_digest: str) -> PackedMask | None:
    """The mask that a training was under, or None where the store has lost it."""
    return read_entry(store, "trainings", training_digest, _mask)


def _mask(entry: Entry) -> PackedMask | None:
    if MASK not in entry.blobs:
        return None
    layers, parameters = Training.from_json(entry.meta).layers, {}
    for key, bits in load(entry.blob(MASK)).items():
        name = key.removeprefix("mask/")
        weights = layers[layer_of(name)].weights
        if bits.dtype != np.uint8 or bits.shape != (-(-weights // 8),):
            raise ValueError(f"{key} must have one bit for each of {weights} weights")
        parameters[name] = bits, weights
    return packed_mask(parameters)
