"""Circuit breaker of a store: open from a failure until a trial write succeeds."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from lth_core.errors import StoreError
from lth_core.store import Store

MAX_OUTAGE, PROBE_INTERVAL = 60.0, 5.0
"""Seconds that a store may fail before the sweep ends, and seconds between two probes of it."""
PROBE = 2**20
"""Size of a probe in bytes: that of a small network's weights."""


class StoreHealth:
    """Circuit breaker: closed while the store accepts entries, open after a failure.

    While it is open, the store is probed every `PROBE_INTERVAL` seconds; a successful probe closes
    it. After an outage of more than `MAX_OUTAGE` it stays open for good: a busy or restarted store
    recovers within that time, a full disk or a deleted bucket does not.

    Args:
        probe: function that writes an entry to the store; raises StoreError.
    """

    def __init__(self, probe: Callable[[], None] = lambda: None) -> None:
        self.error = ""
        """Failure that opened the breaker for good; empty before."""
        self._probe = probe
        self._open_since: float | None = None
        self._next_probe = 0.0

    def trip(self) -> None:
        """Open the breaker: the store has failed."""
        self._open_since = self._open_since or time.monotonic()

    def give_up(self, error: str) -> None:
        """Open the breaker for good."""
        self.error = error

    def is_closed(self) -> bool:
        """Whether the breaker is closed; while it is open, a probe may close it."""
        if self.error:
            return False
        if self._open_since is None:
            return True
        if time.monotonic() < self._next_probe:
            return False
        try:
            self._probe()
        except StoreError as error:
            self._next_probe = time.monotonic() + PROBE_INTERVAL
            if time.monotonic() - self._open_since > MAX_OUTAGE:
                self.give_up(str(error))
            return False
        self._open_since = None
        return True


def probe(store: Store) -> None:
    """Write an entry to a store and delete it.

    Raises:
        StoreError: the store cannot be written.
    """
    path = f".tried/{uuid.uuid4().hex}"
    store.files.write(path, bytes(PROBE))
    store.files.delete(path)
