"""How often a sweep says where it stands."""

import io
import time

import pytest
from rich.console import Console

from lth_core.errors import StoreError
from lth_core.store import Store
from lth_core.store.files import MemoryFiles
from sweeps.run.progress import SweepProgress
from sweeps.store.status import SILENT_AFTER
from sweeps.studies.reader import parse_study

ROUND = 0.5
"""Seconds that one round of Tune's loop takes."""


class SlowFiles(MemoryFiles):
    """Takes seconds to write a file, by a clock that it sets itself; may fail then."""

    def __init__(self, seconds: float, fails: bool, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.seconds, self.fails = seconds, fails
        self.now, self.written = time.monotonic(), list[float]()
        patch.setattr("sweeps.run.progress.time.monotonic", lambda: self.now)

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        self.now += self.seconds
        self.written.append(self.now)
        if self.fails:
            raise StoreError("it does not answer")
        super().write(path, content)


@pytest.mark.parametrize(
    ("seconds", "share", "fails"), [(0, 0, False), (2, 0.1, False), (30, 0.5, True)]
)
def test_slow_store_holds_up_the_sweep_for_a_small_share_of_the_time_and_is_written_to_in_time(
    seconds: float, share: float, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails after 30 s may take half of it: readers wait no longer."""
    with monkeypatch.context() as patch:
        files = SlowFiles(seconds, fails, patch)
        begun, rounds = files.now, 2000
        with SweepProgress(
            parse_study({"name": "tiny"}), Store(files), Console(file=io.StringIO()), 1, 0, 1
        ) as progress:
            for _ in range(rounds):
                files.now += ROUND
                progress.running(1)
    taken = files.now - begun
    assert (taken - rounds * ROUND) / taken <= share + 0.02
    gaps = [after - before for before, after in zip(files.written, files.written[1:], strict=False)]
    assert max(gaps[:-1]) <= SILENT_AFTER + ROUND
