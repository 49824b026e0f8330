"""Locks of trainings: of all processes that use a store, one trains a job and the others wait.

A claim is a small file that its holder renews. It saves work and affects no result: where two
processes hold one (a store without exclusive creation, a holder that was stopped for a minute),
both compute the same result under the same name. Clocks of different machines are never compared:
a waiting process takes a claim over once it was not renewed for one lease by the waiter's own
clock, or, on the holder's machine, as soon as the holder is dead.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lth_core.errors import StoreError, UnreadableFileError
from lth_core.store.files import Files

LEASE = 60.0
"""Seconds after which a claim that was not renewed may be taken over."""
FIRST_LOOK, LONGEST_LOOK = 0.05, 2.0
"""Seconds between two reads of another process's claim: doubled each time, up to the longest."""
SETTLING = 0.3
"""Seconds after which a claim that several processes may have written at once is read again."""


@contextmanager
def claimed(
    files: Files, digest: str, done: Callable[[], bool], lease: float = LEASE
) -> Iterator[bool]:
    """Acquire a job's claim for the duration of a block; wait while another process has it.

    Yields:
        True if the caller is to train the job; False if another process has finished it.
    """
    path = f"claims/{digest}/claim.json"
    mine = {**myself(), "token": uuid.uuid4().hex, "beat": 0}
    if not _taken(files, path, mine, done, lease):
        yield False
        return
    ended = threading.Event()
    heart = threading.Thread(target=_renew, args=(files, path, mine, ended, lease / 6), daemon=True)
    heart.start()
    try:
        yield True
    finally:
        ended.set()
        heart.join()
        with suppress(StoreError):  # the claim expires by itself
            _let_go(files, path, mine)


def _taken(
    files: Files, path: str, mine: dict[str, Any], done: Callable[[], bool], lease: float
) -> bool:
    """Whether the claim was acquired; False where the job was finished first."""
    pause, seen, since = FIRST_LOOK, dict[str, Any](), time.monotonic()
    while not _created(files, path, mine):
        claim = holder(files, path)
        if claim != seen:
            seen, since = claim, time.monotonic()
        expired = is_dead(claim) or time.monotonic() - since > lease
        if expired and _taken_over(files, path, mine):
            break
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_LOOK)
        if done():
            return False
    if done():  # between the caller's look at the store and this claim
        _let_go(files, path, mine)
        return False
    return True


def _created(files: Files, path: str, mine: dict[str, Any]) -> bool:
    made = files.create(path, json.dumps(mine).encode())
    return made and (files.exclusive or _settled(files, path, mine))


def _taken_over(files: Files, path: str, mine: dict[str, Any]) -> bool:
    # Overwritten, not deleted and created: another process may have taken it over meanwhile.
    files.write(path, json.dumps(mine).encode(), durable=False)
    return _settled(files, path, mine)


def _settled(files: Files, path: str, mine: dict[str, Any]) -> bool:
    """Whether a claim that several processes may have written at once is mine: the last wins."""
    time.sleep(SETTLING)
    return _holds(files, path, mine)


def _let_go(files: Files, path: str, mine: dict[str, Any]) -> None:
    if _holds(files, path, mine):
        files.delete(path)


def _renew(
    files: Files, path: str, mine: dict[str, Any], ended: threading.Event, every: float
) -> None:
    beat = 0
    while not ended.wait(every):
        beat += 1
        with suppress(StoreError):  # the store may be unreachable for a moment
            if holder(files, path).get("token", mine["token"]) != mine["token"]:
                return  # another process took the claim over
            files.write(path, json.dumps({**mine, "beat": beat}).encode(), durable=False)


def _holds(files: Files, path: str, mine: dict[str, Any]) -> bool:
    return bool(holder(files, path).get("token") == mine["token"])


def holder(files: Files, path: str) -> dict[str, Any]:
    """The JSON of a claim; empty where it is missing, torn or unreadable."""
    try:
        claim = json.loads(files.read(path) or b"{}")
    except (UnreadableFileError, ValueError, RecursionError):
        return {}
    return claim if isinstance(claim, dict) else {}


def myself() -> dict[str, Any]:
    """Identity of this process, by which others of its machine detect its end."""
    return {"machine": _machine(), "process": os.getpid(), "born": _born(os.getpid())}


def is_dead(identity: dict[str, Any]) -> bool:
    """Whether an identity from `myself` is of a process of this machine that has ended."""
    if identity.get("machine") != _machine() or not isinstance(identity.get("process"), int):
        return False
    return _born(identity["process"]) != identity.get("born")


def _machine() -> str:
    """Identity of this boot of the machine and of the process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # then no process is known to be dead


def _born(process: int) -> str | None:
    """Start time of a process of this machine, in ticks since boot; None where there is none."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    after_name = status.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else after_name[19]
