"""`lth bench`: names and signals; the benchmarks' own tests are in tests/sweeps/bench."""

import os
import signal
from collections.abc import Iterator

import pytest
from tiny import Lth

from sweeps.bench import benchmarks
from sweeps.bench.benchmarks import Measured


def test_unknown_name_is_refused_before_anything_is_measured(
    lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def own() -> Iterator[Measured]:
        yield Measured("own", "seconds", 1.0)

    monkeypatch.setattr(benchmarks, "BENCHMARKS", {"own": own})
    called = lth("bench", "own", "nope")
    assert called.code == 2
    assert called.err.startswith("lth: NAME")
    assert called.out == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_what_a_benchmark_has_begun(
    number: signal.Signals, code: int, lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = list[bool]()

    def own() -> Iterator[Measured]:
        assert signal.getsignal(number) != signal.SIG_DFL
        try:
            os.kill(os.getpid(), number)
            yield Measured("own", "seconds", 1.0)
        finally:
            ended.append(True)

    monkeypatch.setattr(benchmarks, "BENCHMARKS", {"own": own})
    assert lth("bench", "own").code == code
    assert ended == [True]
