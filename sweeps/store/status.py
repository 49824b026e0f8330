"""Status of a running sweep: an entry in the store that another shell reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any

from lth_core.errors import SpecError
from lth_core.spec import sha256
from lth_core.store import MANIFEST, Entry, Store, store_time
from lth_core.store.decode import check, read_entry
from lth_core.store.locks import has_ended
from sweeps.plan.estimate import duration
from sweeps.studies.schema import Study

STATUS = "status"
"""Kind of store entry."""
SILENT_AFTER = 60.0
"""Seconds without a new status after which a running sweep counts as killed."""
STATES = ("running", "finished", "stopped")
MOST_FAILURES = 100
"""Largest number of failures that a status lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """State and counts of a sweep."""

    state: str
    """`running`, `finished`, or `stopped` (by an error, by Ctrl-C)."""
    host: str
    """Name of the driver's machine."""
    process: int
    """Id of the driver's process."""
    trials: int
    done: int
    running: int
    failed: int
    waiting: int
    levels_done: int
    """Number of finished levels of this sweep, without earlier sweeps."""
    levels: int
    """Number of levels of this sweep, without earlier sweeps."""
    levels_per_minute: float
    """Mean over the last ten minutes at most."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Trial and reason of each failure."""
    driver: dict[str, Any] = field(default_factory=dict)
    """Identity of the driver's process, for readers on the same machine."""


def status_key(study: str) -> str:
    """Key of the entry with a study's status; like every key, it ends in a digest."""
    return f"{study}.{sha256(study)}"


def save_status(store: Store, study: str, status: Status) -> None:
    """Store a status in place of the earlier one.

    Raises:
        StoreError: no space left, no permission, ...
    """
    entry = asdict(status) | {"failures": [list(each) for each in status.failures[:MOST_FAILURES]]}
    store.put(STATUS, status_key(study), entry)


def load_status(store: Store, study: Study) -> dict[str, Any]:
    """The latest status of a study's latest sweep, and its age by the store's clock.

    Raises:
        SpecError: the study was never swept into this store.
    """
    key = status_key(study.name)
    status, folder = read_entry(store, STATUS, key, _fields), f"{STATUS}/{key}"
    times = {file.path: file.modified for file in store.files.files(folder)}
    written = times.get(f"{folder}/{MANIFEST}")
    if status is None or written is None:  # or it is being deleted
        rule = f"must have been swept into {study.store} first: lth sweep {study.name}"
        raise SpecError("STUDY", rule, study.name)
    driver = status.pop("driver")
    age = max(0.0, store_time(store) - written)
    if status["state"] == "running" and (age > SILENT_AFTER or has_ended(driver)):
        status["state"] = "silent"
    if status["state"] != "running":
        status["minutes_left"] = None
    return {"study": study.name, **status, "heard_seconds_ago": age}


def _fields(entry: Entry) -> dict[str, Any]:
    """Fields of a stored status, and the minutes left at its pace."""
    check(entry.meta, Status)
    status = {f.name: entry.meta[f.name] for f in fields(Status)}
    if status["state"] not in STATES:
        raise ValueError(f"state must be one of {STATES}, but got {status['state']!r:.80}")
    pace, left = status["levels_per_minute"], status["levels"] - status["levels_done"]
    status["minutes_left"] = left / pace if pace > 0 else None
    if not isfinite(status["minutes_left"] or 0):
        raise ValueError(f"{left} levels cannot be left at {pace} a minute")
    return status


def lines(status: dict[str, Any]) -> Iterator[str]:
    """Lines of a status for a terminal."""
    ago = f"{status['heard_seconds_ago']:.0f} s ago"
    state = {
        "running": f"running on {status['host']}, process {status['process']}; last status {ago}",
        "finished": f"finished {_ago(status)}",
        "stopped": f"stopped {_ago(status)}; `lth sweep {status['study']}` resumes it",
        "silent": f"was killed or cut off: {status['host']}, process {status['process']}; last "
        f"status {_ago(status)}; `lth sweep {status['study']}` resumes it",
    }[status["state"]]
    yield f"{status['study']}: {state}"
    counts = [f"{status[name]} {name}" for name in ("done", "running", "failed", "waiting")]
    yield f"trials   {status['trials']}: {', '.join(counts)}"
    pace = f"{status['levels_per_minute']:.3g} a minute"
    end = status["minutes_left"]
    left = "" if end is None else f", about {duration(60 * end)} left"
    yield f"levels   {status['levels_done']} of {status['levels']} in this sweep, {pace}{left}"
    for name, reason in status["failures"]:
        yield f"failed   {name}: {reason}"
    if (more := status["failed"] - len(status["failures"])) > 0:
        yield f"... {more:,} more failed"


def _ago(status: dict[str, Any]) -> str:
    return f"{duration(status['heard_seconds_ago'])} ago"
