"""Trials with records in a store, of any study, and their tickets."""

from __future__ import annotations

from collections.abc import Iterator
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


def ticket_records(store: Store) -> dict[str, tuple[dict[str, Any], Record]]:
    """A trial with each ticket and its record there, by the ticket's digest.

    Several trainings may start from one ticket, such as a twin or one with `restart_schedule`. The
    record is of the branch `ticket` where there is one, else of the first branch.
    """
    found: dict[str, tuple[dict[str, Any], Record]] = {}
    for trial in every_trial(store):
        for record in trial["records"]:
            _, known = found.setdefault(record["ticket_digest"], (trial, record))
            if record["branch"] == "ticket" != known["branch"]:
                found[record["ticket_digest"]] = trial, record
    return found


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
