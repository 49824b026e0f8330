"""What a sweep under way says of itself in the store, and how another shell reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any

from lth_core.errors import SpecError
from lth_core.spec import sha256
from lth_core.store import MANIFEST, Entry, Store, store_time
from lth_core.store.decode import check, read_entry
from lth_core.store.locks import is_dead
from sweeps.plan.estimate import duration
from sweeps.studies.schema import Study

STATUS = "status"
"""Kind of store entry."""
SILENT = 60.0
"""Seconds after which a sweep that said nothing is taken to be dead."""
STATES = ("running", "finished", "stopped")
MOST = 100
"""Failures that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a sweep stands.

    state: running, finished, or stopped (by an error, by Ctrl-C).
    host, process: of the driver.
    levels, levels_done: of this sweep, without what was done before.
    levels_per_minute: over the last ten minutes at most.
    failures: trial and reason.
    driver: who it is, for those on its machine.
    """

    state: str
    host: str
    process: int
    trials: int
    done: int
    running: int
    failed: int
    waiting: int
    levels_done: int
    levels: int
    levels_per_minute: float
    failures: list[tuple[str, str]] = field(default_factory=list)
    driver: dict[str, Any] = field(default_factory=dict)


def status_key(study: str) -> str:
    """The entry of a study's status: like every entry's, its name ends in a digest."""
    return f"{study}.{sha256(study)}"


def save_status(store: Store, study: str, status: Status) -> None:
    """Keep it in place of the one before.

    Raises:
        StoreError: no space left, no permission, ...
    """
    said = asdict(status) | {"failures": [list(each) for each in status.failures[:MOST]]}
    store.put(STATUS, status_key(study), said)


def load_status(store: Store, study: Study) -> dict[str, Any]:
    """What the latest sweep of a study has said last, and how long ago, by the store's clock.

    Raises:
        SpecError: it was never swept into this store.
    """
    key = status_key(study.name)
    said, folder = read_entry(store, STATUS, key, _said), f"{STATUS}/{key}"
    times = {found.path: found.modified for found in store.files.files(folder)}
    written = times.get(f"{folder}/{MANIFEST}")
    if said is None or written is None:  # or it is taken out right now
        rule = f"must have been swept into {study.store} first: lth sweep {study.name}"
        raise SpecError("STUDY", rule, study.name)
    driver = said.pop("driver")
    heard = max(0.0, store_time(store) - written)
    if said["state"] == "running" and (heard > SILENT or is_dead(driver)):
        said["state"] = "silent"
    if said["state"] != "running":
        said["minutes_left"] = None
    return {"study": study.name, **said, "heard_seconds_ago": heard}


def _said(entry: Entry) -> dict[str, Any]:
    """What a status says, and the minutes that are left at its pace."""
    check(entry.meta, Status)
    said = {f.name: entry.meta[f.name] for f in fields(Status)}
    if said["state"] not in STATES:
        raise ValueError(f"state must be one of {STATES}, but got {said['state']!r:.80}")
    pace, left = said["levels_per_minute"], said["levels"] - said["levels_done"]
    said["minutes_left"] = left / pace if pace > 0 else None
    if not isfinite(said["minutes_left"] or 0):
        raise ValueError(f"{left} levels cannot be left at {pace} a minute")
    return said


def lines(said: dict[str, Any]) -> Iterator[str]:
    """A status for a terminal."""
    ago = f"{said['heard_seconds_ago']:.0f} s ago"
    about = {
        "running": f"running on {said['host']}, process {said['process']}; heard {ago}",
        "finished": f"finished {_ago(said)}",
        "stopped": f"stopped {_ago(said)}; `lth sweep {said['study']}` goes on",
        "silent": f"was killed or cut off: {said['host']}, process {said['process']}, was last "
        f"heard {_ago(said)}; `lth sweep {said['study']}` goes on",
    }[said["state"]]
    yield f"{said['study']}: {about}"
    counts = [f"{said[name]} {name}" for name in ("done", "running", "failed", "waiting")]
    yield f"trials   {said['trials']}: {', '.join(counts)}"
    pace = f"{said['levels_per_minute']:.3g} a minute"
    end = said["minutes_left"]
    left = "" if end is None else f", about {duration(60 * end)} left"
    yield f"levels   {said['levels_done']} of {said['levels']} in this sweep, {pace}{left}"
    for name, reason in said["failures"]:
        yield f"failed   {name}: {reason}"
    if (more := said["failed"] - len(said["failures"])) > 0:
        yield f"... {more:,} more failed"


def _ago(said: dict[str, Any]) -> str:
    return f"{duration(said['heard_seconds_ago'])} ago"
