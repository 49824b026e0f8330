"""Trials with records in a store, of any study, and their tickets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from lth_core.columns import Record
from lth_core.store import Entry, Store
from lth_core.store.decode import check, read_entry

TRIALS = "trials"
"""Kind of the entries."""


class _Row(TypedDict):
    """Columns of the records of all branches; tables and figures may use more."""

    study: str
    trial: str
    seed: int
    method: str
    branch: str
    level: int
    density: float
    weights_kept: int
    final_test_accuracy: float
    early_stop_step: int | None
    early_stop_test_accuracy: float | None
    steps: int
    flops: int
    layer_density: dict[str, Any]
    spec_digest: str
    ticket_digest: str
    training_digest: str


class _Trial(TypedDict):
    study: str
    study_digest: str
    fields: dict[str, Any]
    spec: dict[str, Any]
    records: list[_Row]


def every_trial(store: Store) -> Iterator[dict[str, Any]]:
    """The stored content of each trial of any study: spec, axis values, records."""
    for key in store.digests(TRIALS):
        if content := read_trial(store, key):
            yield content


Found = tuple[dict[str, Any], Record]
"""A trial, and one of its records."""


def ticket_records(trials: Iterable[dict[str, Any]]) -> list[Found]:
    """A trial and its record of each training that started from a ticket, once for each study.

    Several trainings may start from one ticket: a twin, one of another learning rate, or one of
    another study. The record is of the branch `ticket` where there is one; of several trials the
    first counts.
    """
    found: dict[tuple[str, str, str], Found] = {}
    for trial in trials:
        for record in trial["records"]:
            key = trial["study"], record["ticket_digest"], record["training_digest"]
            _, known = found.setdefault(key, (trial, record))
            if record["branch"] == "ticket" != known["branch"]:
                found[key] = trial, record
    return list(found.values())


def tickets_by_digest(store: Store, start: str) -> dict[str, list[Found]]:
    """The `ticket_records` of each ticket whose digest has a start: those of the search that found
    it before those of searches to which it was given, and those of `ticket` before controls."""
    found: dict[str, list[Found]] = {}
    for trial, record in ticket_records(every_trial(store)):
        if record["ticket_digest"].startswith(start):
            found.setdefault(record["ticket_digest"], []).append((trial, record))
    for each in found.values():
        each.sort(key=lambda one: (_is_given(one[1]), one[1]["branch"] != "ticket"))
    return found


def _is_given(record: Mapping[str, Any]) -> bool:
    """Whether a training started from a ticket that its search was given."""
    return bool(record.get("source_ticket") == record["ticket_digest"])


def read_trial(store: Store, key: str) -> dict[str, Any] | None:
    """The content of an entry; None where it is missing or cannot be read."""
    return read_entry(store, TRIALS, key, checked_meta)


def checked_meta(entry: Entry) -> dict[str, Any]:
    """The content of an entry.

    Raises:
        TypeError: it is not a trial's.
    """
    check(entry.meta, _Trial)
    return entry.meta
