"""Circuit breaker of a store: open from a failure until a trial write succeeds."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from lth_core.errors import StoreError
from lth_core.store import Store

PATIENCE, PAUSE = 60.0, 5.0
"""Seconds that a store may fail before the sweep ends, and between two probes meanwhile."""
PROBE = 2**20
"""Bytes of a probe: as much as the weights of a small network."""


class StoreHealth:
    """Circuit breaker: closed while the store takes entries, open after a failure.

    While it is open, the store is probed every `PAUSE` seconds; a probe that succeeds closes it. A
    store that fails for longer than `PATIENCE` is given up for good: a busy or a restarted store
    recovers within that time, a full disk or a deleted bucket does not.

    Args:
        probe: checks that the store takes an entry; raises StoreError.
    """

    def __init__(self, probe: Callable[[], None] = lambda: None) -> None:
        self.error = ""
        """Why the store was given up; empty until then."""
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
        """Whether the store takes entries; while the breaker is open, a probe may close it."""
        if self.error:
            return False
        if self._open_since is None:
            return True
        if time.monotonic() < self._next_probe:
            return False
        try:
            self._probe()
        except StoreError as error:
            self._next_probe = time.monotonic() + PAUSE
            if time.monotonic() - self._open_since > PATIENCE:
                self.give_up(str(error))
            return False
        self._open_since = None
        return True


def probe(store: Store) -> None:
    """Write an entry to a store and delete it.

    Raises:
        StoreError: the store does not take it.
    """
    path = f".tried/{uuid.uuid4().hex}"
    store.files.write(path, bytes(PROBE))
    store.files.delete(path)
