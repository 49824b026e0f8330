"""Status of a running sweep: an entry in the store that another shell reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any, Literal, get_args

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
Run = Literal["sweep", "rewind"]
"""Command that runs trials of a study; each has a status of its own."""
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
    minutes_left: float | None = None
    """Expected minutes to the end; None before the first level has ended, and after the last."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Trial and reason of each failure."""
    driver: dict[str, Any] = field(default_factory=dict)
    """Identity of the driver's process, for readers on the same machine."""
    command: str = ""
    """Command that resumes the run, as a shell takes it; empty in entries of an older version."""


def status_key(study: str, run: Run = "sweep") -> str:
    """Key of the entry with the status of a study's sweep or bisection; it ends in a digest."""
    return f"{study}.{sha256(study if run == 'sweep' else [study, run])}"


def save_status(store: Store, study: str, status: Status, run: Run = "sweep") -> None:
    """Store a status in place of the earlier one.

    Raises:
        StoreError: no space left, no permission, ...
    """
    entry = asdict(status) | {"failures": [list(each) for each in status.failures[:MOST_FAILURES]]}
    store.put(STATUS, status_key(study, run), entry)


def load_status(store: Store, study: Study, run: Run = "sweep") -> dict[str, Any]:
    """The latest status of a study's latest sweep or bisection, and its age by the store's clock.

    Raises:
        SpecError: the store has none.
    """
    status = _read(store, study, run)
    if status is None:
        rule = f"must have been swept into {study.store} first: {study.command(run)}"
        raise SpecError("STUDY", rule, study.name)
    return status


def is_finished(store: Store, study: Study) -> bool:
    """Whether the latest sweep of the study is known to have run to its end."""
    status = _read(store, study, "sweep")
    return status is not None and status["state"] == "finished"


def has_failures(store: Store, study: Study) -> bool:
    """Whether trials of the study's latest sweep have failed."""
    status = _read(store, study, "sweep")
    return status is not None and status["failed"] > 0


def load_statuses(store: Store, study: Study) -> list[dict[str, Any]]:
    """The statuses of a study's latest sweep and bisection, those that the store has.

    Raises:
        SpecError: it has none.
    """
    statuses = [status for run in get_args(Run) if (status := _read(store, study, run))]
    return statuses or [load_status(store, study)]


def is_running(store: Store, study: str) -> bool:
    """Whether a sweep or a bisection of the study is running, as far as its status shows."""
    statuses = (_latest(store, study, run) for run in get_args(Run))
    return any(status["state"] == "running" for status in statuses if status)


def _read(store: Store, study: Study, run: Run) -> dict[str, Any] | None:
    status = _latest(store, study.name, run)
    if status is None:
        return None
    command = status["command"] or study.command(run)
    return {"study": study.name, "run": run, **status, "command": command}


def _latest(store: Store, study: str, run: Run) -> dict[str, Any] | None:
    """The latest status with its age; None where the store has none."""
    key = status_key(study, run)
    status, folder = read_entry(store, STATUS, key, _fields), f"{STATUS}/{key}"
    times = {file.path: file.modified for file in store.files.files(folder)}
    written = times.get(f"{folder}/{MANIFEST}")
    if status is None or written is None:  # or it is being deleted
        return None
    driver = status.pop("driver")
    age = max(0.0, store_time(store) - written)
    if status["state"] == "running" and (age > SILENT_AFTER or has_ended(driver)):
        status["state"] = "silent"
    if status["state"] != "running":
        status["minutes_left"] = None
    return {**status, "heard_seconds_ago": age}


def _fields(entry: Entry) -> dict[str, Any]:
    """Fields of a stored status."""
    meta = {"command": "", "minutes_left": None, **entry.meta}  # an older version had neither
    check(meta, Status)
    status = {f.name: meta[f.name] for f in fields(Status)}
    if status["state"] not in STATES:
        raise ValueError(f"state must be one of {STATES}, but got {status['state']!r:.80}")
    if not isfinite(60 * (status["minutes_left"] or 0)):  # seconds are shown
        raise ValueError(f"minutes_left must be finite seconds, but got {status['minutes_left']}")
    return status


def lines(status: dict[str, Any]) -> Iterator[str]:
    """Lines of a status for a terminal."""
    ago = f"{status['heard_seconds_ago']:.0f} s ago"
    resume = f"`{status['command']}` resumes it"
    state = {
        "running": f"running on {status['host']}, process {status['process']}; last status {ago}",
        "finished": f"finished {_ago(status)}",
        "stopped": f"stopped {_ago(status)}; {resume}",
        "silent": f"was killed or cut off: {status['host']}, process {status['process']}; last "
        f"status {_ago(status)}; {resume}",
    }[status["state"]]
    yield f"{status['study']}: {status['run']} {state}"
    counts = [f"{status[name]} {name}" for name in ("done", "running", "failed", "waiting")]
    # A bisection ends as soon as it knows the answer.
    most = "at most " * (status["run"] == "rewind" and status["state"] != "finished")
    yield f"trials   {most}{status['trials']}: {', '.join(counts)}"
    rate = status["levels_per_minute"]
    pace = f"{rate:,.0f} a minute" if rate >= 100 else f"{rate:.3g} a minute"
    end = status["minutes_left"]
    left = "" if end is None else f", about {duration(60 * end)} left"
    yield f"levels   {status['levels_done']} of {most}{status['levels']} in this run, {pace}{left}"
    for name, reason in status["failures"]:
        yield f"failed   {name}: {reason}"
    if (more := status["failed"] - len(status["failures"])) > 0:
        yield f"... {more:,} more failed"


def _ago(status: dict[str, Any]) -> str:
    return f"{duration(status['heard_seconds_ago'])} ago"
