"""Locks of trainings: of all processes that use a store, one trains a job and the others wait.

A claim is a small file that its holder renews. It saves work and affects no result: where two
processes hold one (a store without exclusive creation, a holder that was stopped for a minute),
both compute the same result under the same name. Clocks of different machines are never compared:
a waiting process takes a claim over once it was not renewed for one lease by the waiter's own
clock, or, on the holder's machine, as soon as the holder's process has ended.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from lth_core.errors import StoreError, UnreadableFileError
from lth_core.store.files import Files

LEASE = 60.0
"""Seconds after which a claim that was not renewed may be taken over."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two reads of another process's claim: doubled each time, up to the longest."""
SETTLING = 0.3
"""Seconds after which a claim that several processes may have written at once is read again."""

_held = set[str]()
"""Tokens of the claims that this process holds or acquires."""


@contextmanager
def claimed(
    files: Files,
    digest: str,
    done: Callable[[], bool],
    lease: float = LEASE,
    *,
    wait: bool = True,
) -> Iterator[bool]:
    """Acquire a job's claim for the duration of a block; wait while another process has it.

    Args:
        done: whether the job is finished.
        lease: seconds after which a claim that was not renewed expires.
        wait: whether to wait for another process. Who has acquired one claim must not wait for a
            second: two processes would wait for each other.

    Yields:
        True if the caller is to train the job; False if another process has finished it, or does.
    """
    path = f"claims/{digest}/claim.json"
    claim = {**this_process(), "token": uuid.uuid4().hex, "beat": 0}
    _held.add(claim["token"])
    try:
        if not _acquire(files, path, claim, done, lease if wait else None):
            yield False
            return
        with _renewed(files, path, claim, lease / 6):
            yield True
    finally:
        _held.discard(claim["token"])


@contextmanager
def _renewed(files: Files, path: str, claim: dict[str, Any], interval: float) -> Iterator[None]:
    """Renew a claim for the duration of a block, then release it."""
    released = threading.Event()
    renewal = threading.Thread(
        target=_renew, args=(files, path, claim, released, interval), daemon=True
    )
    renewal.start()
    try:
        yield
    finally:
        released.set()
        renewal.join()
        with suppress(StoreError):  # this process takes it over later; for others it expires
            _release(files, path, claim)


def _acquire(
    files: Files, path: str, claim: dict[str, Any], done: Callable[[], bool], lease: float | None
) -> bool:
    """Whether the claim was acquired; False where the job was finished first.

    Args:
        lease: as in `claimed`; None: give up at once where a running process has the claim.
    """
    pause, last_seen, since = FIRST_PAUSE, dict[str, Any](), time.monotonic()
    while not _create(files, path, claim):
        other = read_claim(files, path)
        if other != last_seen:
            last_seen, since = other, time.monotonic()
        waited = lease is not None and time.monotonic() - since > lease
        if (has_ended(other) or _is_left(other) or waited) and _take_over(files, path, claim):
            break
        if lease is None:
            return False
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        if done():
            return False
    if done():  # finished after the caller read the store, and before this claim
        _release(files, path, claim)
        return False
    return True


def _create(files: Files, path: str, claim: dict[str, Any]) -> bool:
    created = files.create(path, json.dumps(claim).encode())
    return created and (files.exclusive or _is_last_writer(files, path, claim))


def _take_over(files: Files, path: str, claim: dict[str, Any]) -> bool:
    # Overwritten, not deleted and created: another process may have taken it over meanwhile.
    files.write(path, json.dumps(claim).encode(), durable=False)
    return _is_last_writer(files, path, claim)


def _is_last_writer(files: Files, path: str, claim: dict[str, Any]) -> bool:
    """Whether this claim was written last, where several processes may write one at once."""
    time.sleep(SETTLING)
    return _holds(files, path, claim)


def _release(files: Files, path: str, claim: dict[str, Any]) -> None:
    if _holds(files, path, claim):
        files.delete(path)


def _renew(
    files: Files, path: str, claim: dict[str, Any], released: threading.Event, interval: float
) -> None:
    beat = 0
    while not released.wait(interval):
        beat += 1
        with suppress(StoreError):  # the store may be unreachable for a moment
            if read_claim(files, path).get("token", claim["token"]) != claim["token"]:
                return  # another process took the claim over
            files.write(path, json.dumps({**claim, "beat": beat}).encode(), durable=False)


def _holds(files: Files, path: str, claim: dict[str, Any]) -> bool:
    return bool(read_claim(files, path).get("token") == claim["token"])


def read_claim(files: Files, path: str) -> dict[str, Any]:
    """The JSON of a claim; empty where it is missing, torn or unreadable."""
    try:
        claim = json.loads(files.read(path) or b"{}")
    except (UnreadableFileError, ValueError, RecursionError):
        return {}
    return claim if isinstance(claim, dict) else {}


def this_process() -> dict[str, Any]:
    """Identity of this process, by which other processes of its machine detect its end."""
    return {"machine": _machine(), "process": os.getpid(), "born": _start_time(os.getpid())}


def has_ended(identity: dict[str, Any]) -> bool:
    """Whether an identity from `this_process` is that of an ended process of this machine."""
    if identity.get("machine") != _machine() or not isinstance(identity.get("process"), int):
        return False
    return _start_time(identity["process"]) != identity.get("born")


def _is_left(claim: dict[str, Any]) -> bool:
    """Whether a claim is one that this process could not release, as while the store failed."""
    return claim.get("token") not in _held and this_process().items() <= claim.items()


@lru_cache(maxsize=1)
def _machine() -> str:
    """Identity of this boot of the machine and of the process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # then no process is known to have ended


def _start_time(process: int) -> str | None:
    """Start time of a process of this machine, in ticks since boot; None where there is none."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    after_name = status.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else after_name[19]
