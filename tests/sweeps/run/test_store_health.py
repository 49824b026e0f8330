"""Circuit breaker of a store, on a clock that only tests move."""

import time

import pytest

from lth_core.errors import StoreError
from lth_core.store import Store
from lth_core.store.files import MemoryFiles
from sweeps.run.store_health import MAX_OUTAGE, PROBE_INTERVAL, StoreHealth, probe


class Probe:
    """A probe that fails while the store is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls, self.away = 100.0, 0, True
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def __call__(self) -> None:
        self.calls += 1
        if self.away:
            raise StoreError("no space left")


def test_breaker_that_was_never_tripped_is_closed_without_a_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probed = Probe(monkeypatch)
    assert StoreHealth(probed).is_closed()
    assert probed.calls == 0


def test_open_breaker_is_probed_every_pause_and_closed_by_a_probe_that_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probed = Probe(monkeypatch)
    health = StoreHealth(probed)
    health.trip()
    for _ in range(10):
        assert not health.is_closed()
    assert probed.calls == 1
    probed.now += PROBE_INTERVAL
    assert not health.is_closed()
    assert probed.calls == 2
    probed.away, probed.now = False, probed.now + PROBE_INTERVAL
    assert health.is_closed()
    assert health.is_closed()
    assert probed.calls == 3
    assert health.error == ""


def test_store_is_given_up_for_good_after_patience_counted_from_the_first_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probed = Probe(monkeypatch)
    health = StoreHealth(probed)
    health.trip()
    probed.now += MAX_OUTAGE
    health.trip()  # a later failure does not begin the count anew
    assert not health.is_closed()
    assert health.error == ""
    probed.now += PROBE_INTERVAL
    assert not health.is_closed()
    assert health.error == "no space left"
    probed.away, probed.now = False, probed.now + PROBE_INTERVAL
    assert not health.is_closed()


def test_probe_leaves_nothing_in_the_store() -> None:
    files = MemoryFiles()
    probe(Store(files))
    assert [*files.files(".tried")] == []
