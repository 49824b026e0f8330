"""How often a sweep says where it stands."""

import errno
import io
import os
import time

import pytest
from rich.console import Console
from rich.progress import Progress

from lth_core.errors import StoreError
from lth_core.store import Store
from lth_core.store.files import MemoryFiles
from sweeps.run.progress import SweepProgress
from sweeps.store.status import SILENT_AFTER, load_status
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr("sweeps.run.progress.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("verbose", [False, True])
def test_log_has_lines_at_the_first_training_each_tenth_and_each_minute_with_the_time_left(
    clock: list[float], verbose: bool
) -> None:
    log = io.StringIO()
    study, console = parse_study({"name": "tiny"}), Console(file=log, width=80)
    levels = 30
    with SweepProgress(study, Store(), console, 1, 0, levels, verbose=verbose) as progress:
        clock[0] += 500  # workers start, which is no training
        progress.running(1)
        for level in range(levels):
            clock[0] += 90 if level == 4 else 10
            progress.report({"of": "a", "level": level, "latest": f"level {level}"})
        assert progress.seconds == 30 * 10 + 80
    first, *lines = log.getvalue().splitlines()
    assert first == "first trainings ..."
    if verbose:
        assert len(lines) == levels
        return
    printed = [int(line.partition("/")[0]) for line in lines]
    assert printed == [1, 3, 5, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert lines[0] == "1/30 levels, about 4 min 50 s left  level 0"
    assert lines[2] == "5/30 levels, about 11 min left  level 4"  # 5 in 130 s
    assert lines[-1] == "30/30 levels  level 29"


def test_levels_count_towards_the_time_left_by_their_expected_seconds(clock: list[float]) -> None:
    """Narrow networks come first, and take a ninth of the time of wide ones."""
    log, store, study = io.StringIO(), Store(), parse_study({"name": "tiny"})
    expected = {"narrow": [0.5] * 4, "wide": [4.5] * 4}
    console = Console(file=log, width=80)
    with SweepProgress(study, store, console, 2, 0, 8, expected, verbose=True) as progress:
        progress.running(1)
        for trial, seconds in (("narrow", 10), ("wide", 90)):
            for level in range(4):
                clock[0] += seconds
                progress.report({"of": trial, "level": level, "latest": "-"})
            progress.running(1)
            if trial == "narrow":
                assert load_status(store, study)["minutes_left"] == pytest.approx(4 * 90 / 60)
    left = [line.split(" left")[0].partition(", about ")[2] for line in log.getvalue().splitlines()]
    assert left == [
        "", "6 min 30 s", "6 min 20 s", "6 min 10 s", "6 min 0 s", "4 min 30 s", "3 min 0 s",
        "1 min 30 s", "",
    ]  # fmt: skip


@pytest.mark.parametrize("apart", [0, 2])
def test_time_left_is_right_from_the_first_level_on(apart: float, clock: list[float]) -> None:
    """Four trials run side by side, of four levels of 8 s that end together, as in a pack, or not."""
    log = io.StringIO()
    study, console = parse_study({"name": "tiny"}), Console(file=log, width=80)
    with SweepProgress(study, Store(), console, 4, 0, 16, verbose=True) as progress:
        progress.running(4)
        for level in range(4):
            for trial in range(4):
                clock[0] = 1000 + 8 * (level + 1) + apart * trial
                progress.report({"of": f"trial {trial}", "level": level, "latest": "-"})
    left = [line.split(" left")[0].partition(", about ")[2] for line in log.getvalue().splitlines()]
    seconds = [float(text.removesuffix(" s")) for text in left[1:-1]]
    assert seconds[0] == pytest.approx(24 + 3 * apart, abs=1 + 3 * apart)
    assert seconds[3] == pytest.approx(24, abs=1 + 3 * apart)
    assert seconds[7] == pytest.approx(16, abs=1 + apart)
    assert seconds[11] == pytest.approx(8, abs=1 + apart)


def test_trials_that_have_ended_count_for_the_time_left_no_more(clock: list[float]) -> None:
    """Two workers run six trials of one level of 10 s, by turns."""
    store, study = Store(), parse_study({"name": "tiny"})
    expected = {f"trial {number}": [3.0] for number in range(6)}
    console = Console(file=io.StringIO())
    with SweepProgress(study, store, console, 6, 0, 6, expected) as progress:
        for number in range(6):
            progress.running(2 if number < 5 else 1)
            clock[0] += 10 if number == 0 else 5
            trial = f"trial {number}"
            progress.report({"of": trial, "level": 0, "latest": "-"})
            progress.ended([trial], {})
            progress._save("running")
            if number < 5:
                left = load_status(store, study)["minutes_left"] * 60
                assert left == pytest.approx(5 * (5 - number), abs=5)


def test_trial_that_is_run_again_counts_its_levels_and_itself_once(clock: list[float]) -> None:
    store, study = Store(), parse_study({"name": "tiny"})

    def status(progress: SweepProgress) -> tuple[int, ...]:
        progress._save("running")
        found = load_status(store, study)
        return tuple(found[n] for n in ("done", "running", "failed", "waiting", "levels_done"))

    with SweepProgress(study, store, Console(file=io.StringIO()), 2, 0, 4) as progress:
        progress.running(2)
        for name in ("one", "other"):
            progress.report({"of": name, "level": 0, "latest": "-"})
        progress.ended(["one"], {"store": "it does not answer"})  # and is run again
        progress.died(["other"], "killed")
        progress.running(2)
        assert status(progress) == (0, 2, 0, 0, 2)
        for level in (0, 1):
            for name in ("one", "other"):
                progress.report({"of": name, "level": level, "latest": "-"})
        assert status(progress)[-1] == 4
        progress.ended(["one"], {})
        progress.running(0)
        assert status(progress) == (1, 0, 1, 0, 4)


def test_bar_fits_80_columns_on_one_line_and_is_gone_after_a_stop_that_is_said_at_once(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)

    def start(bar: Progress) -> None:
        bar.live.auto_refresh = False  # or its thread may draw between the lines of this test
        bar.live.start(refresh=False)

    monkeypatch.setattr(Progress, "start", start)
    progress = SweepProgress(parse_study({"name": "tiny"}), Store(), console, 100, 0, 12345)
    with progress:
        progress.running(2)
        for level in range(4321):
            clock[0] += 60
            progress.report({"of": "a", "level": level, "latest": "ticket 0.973 " * 9})
        progress.running(2)
        with console.capture() as drawn:
            console.print(progress._bar)
        (line,) = drawn.get().splitlines()
        assert len(line) <= 80
        assert "4321/12345 levels" in line
        assert "about 5 d 14 h left" in line
        progress.stopping()
        assert "stopping: running trainings store their checkpoints" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K"), "the bar's line is cleared"


class Closed(io.StringIO):
    """A terminal that was closed, or a pipe whose reader has ended."""

    def __init__(self, error: int) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise OSError(self.error, "it is gone")

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)


@pytest.mark.parametrize("error", [errno.EIO, errno.EPIPE])
def test_run_ends_in_order_where_nobody_reads_its_output(
    error: int, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are stored after the message, and the status at the end."""
    closed = Closed(error)
    monkeypatch.setattr("sys.stdout", closed)
    study, store = parse_study({"name": "tiny"}), Store()
    console = Console(file=closed)

    def interrupted() -> None:
        with SweepProgress(study, store, console, 1, 0, 1) as progress:
            progress.stopping()
            console.print("no error either")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert load_status(store, study)["state"] == "stopped"


def test_levels_that_the_store_had_tell_no_pace(clock: list[float]) -> None:
    """A resumed run begins with them; each takes a moment."""
    seconds = {"a": [0.01, 0.01, 10.0, 10.0, 10.0]}
    study, store = parse_study({"name": "tiny"}), Store()
    console = Console(file=io.StringIO())
    with SweepProgress(study, store, console, 1, 0, 5, seconds) as progress:
        progress.running(1)
        for level, took in enumerate((2.0, 0.1, 10.0)):
            assert progress._left() == ""
            clock[0] += took
            progress.report({"of": "a", "level": level, "latest": "-"})
        assert progress._left() == "about 24 s left"
