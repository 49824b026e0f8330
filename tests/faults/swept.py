"""A study that writes down every step of its trainings, swept by `lth` in processes of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked import Forked

from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.report.study_results import study_results
from sweeps.store.integrity import find_faults
from sweeps.store.status import load_status
from sweeps.studies.reader import parse_study

LTH = Path(sys.executable).with_name("lth")
HURRIED = (
    sys.executable,
    "-c",
    """
import lth_core.store.s3, sweeps.run.store_health
lth_core.store.s3.ATTEMPTS = 1
sweeps.run.store_health.MAX_OUTAGE, sweeps.run.store_health.PROBE_INTERVAL = 3.0, 1.0
from sweeps.cli.main import run
run()
""",
)
"""`lth` whose driver gives a failing store up after seconds, not after minutes."""
PATIENCE = 600
"""Seconds for what takes about 20 on a machine with nothing else to do."""
STEPS = 150
"""Of each training; about a second."""
FIELDS: dict[str, Any] = {
    "name": "hit",
    "base": {
        "model": {"name": "counted:net"},
        "train": {"lr": 0.01, "steps": f"{STEPS}it", "evaluate_every": "50it"},
        "prune": {"fraction": 0.5},
        "levels": 2,
        "rewind": "10it",
        "branches": ["ticket", "reinit"],
    },
    "axes": {"seed": [0, 1, 2, 3]},
    "tracking": {"uri": None},
}
Row = dict[str, Any]
Driver = Forked | subprocess.Popen[bytes]


@dataclass(frozen=True)
class Step:
    """worker: process; training: a network, which trains once; state: weights and batch."""

    worker: int
    training: str
    state: str


class Swept:
    """A study's folder, and the command line called in it.

    Args:
        env: in which `lth` runs.
        address: of a Ray cluster; None: each sweep starts its own. A serial one needs none.
        changes: of the study's file, by top-level field.
    """

    def __init__(
        self, folder: Path, env: Mapping[str, str], address: str | None = None, **changes: Any
    ) -> None:
        self.folder, self.address = folder, address
        self.env = {**env, "LTH_CACHE": str(folder / "cache")}
        if address is None:  # in the same folder one would join the other's Ray
            self.env["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="r", dir=env["RAY_TMPDIR"])
        self.fields = {**FIELDS, "store": str(folder / "lth-store"), **changes}
        self.store = Path(self.fields["store"])
        folder.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).with_name("counted.py"), folder)
        (folder / "hit.yaml").write_text(yaml.safe_dump(self.fields))
        (folder / "steps.txt").touch()
        self._steps, self._read = list[Step](), 0
        self._gate = folder / "gate"
        self._drivers: list[Driver] = []

    # The command line

    def start(self, *arguments: str, before: Sequence[str] = (), lth: Sequence[str] = ()) -> Driver:
        """`lth sweep`, in a session of its own, so that all it starts can be told by it.

        Args:
            before: a command that runs it.
            lth: what is run in the place of `lth`.
        """
        joins = self.address and "--serial" not in arguments
        at = ["--address", self.address] if self.address and joins else []
        called = ["sweep", "hit.yaml", *arguments, *at]
        self._drivers.append(self._start(called, self.folder / "log.txt", before, lth))
        return self._drivers[-1]

    def _start(
        self, arguments: Sequence[str], log: Path, before: Sequence[str], lth: Sequence[str]
    ) -> Driver:
        # A module on Python's path, such as another clock, is met by a Python that starts.
        starts_python = self.env.get("PYTHONPATH") != os.environ.get("PYTHONPATH")
        if not (before or lth or starts_python):
            return Forked(arguments, self.folder, self.env, log)
        with log.open("w") as output:
            return subprocess.Popen(
                [*before, *(lth or [str(LTH)]), *arguments], cwd=self.folder, env=self.env,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def wait(self, driver: Driver) -> int:
        try:
            return driver.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the sweep did not end in {PATIENCE} s: {self.log()}")

    def sweep(self, *arguments: str) -> int:
        """Sweep to the end; the exit code."""
        return self.wait(self.start(*arguments))

    def log(self) -> str:
        """What the latest sweep has printed."""
        return (self.folder / "log.txt").read_text()

    def lth(self, *arguments: str, code: int = 0) -> str:
        """What another command prints; its exit code must be the given one."""
        output = self.folder / "output.txt"
        ended = self._start(arguments, output, (), ()).wait(PATIENCE)
        assert ended == code, output.read_text()
        return output.read_text()

    def status(self) -> Row:
        """`lth status` in this process, at a twentieth of the time."""
        return load_status(open_store(str(self.store)), parse_study(self.fields))

    def report(self) -> list[Row]:
        """The records of `lth report --json`, in this process too."""
        return study_results(make_plan(parse_study(self.fields))).records

    # What happens in it

    def steps(self) -> list[Step]:
        """Every step that was trained, in any process. Asked for all the time, so only what is new
        is read."""
        with (self.folder / "steps.txt").open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole + end)
        rows = (line.split() for line in whole.decode().splitlines())
        self._steps += [Step(int(w), training, state) for w, training, state in rows]
        return [*self._steps]

    def finished(self) -> int:
        """Trainings that the store has."""
        return len(self.entries())

    def entries(self) -> list[Path]:
        """What the store says of each training; another one would say another time."""
        return list((self.store / "trainings").glob("*/entry.json"))

    def worker(self, finished: int, among: Callable[[int], bool] = lambda worker: True) -> int:
        """Wait until so many trainings are done and one is half way; the process that trains it."""

        def found() -> int | None:
            return self._half_way(among) if self.finished() >= finished else None

        return int(wait_for(found, lambda: f"a training half way: {self.log()}"))

    @contextmanager
    def held(self, finished: int) -> Iterator[int]:
        """As `worker`; while the context lasts, each training stays at the step where it is.

        So what is done to that process meets it in the middle of its training, however long who
        does it was kept waiting by the machine.
        """

        def found() -> int | None:
            self.worker(finished)
            self._gate.touch()  # a process that is past it takes one step more
            if process := self._half_way():
                return process
            self.release()
            return None

        try:
            yield int(wait_for(found, lambda: f"a training half way: {self.log()}"))
        finally:
            self.release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the context lasts, each training stays at the step where it is."""
        self._gate.touch()
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let the trainings go on."""
        self._gate.unlink(missing_ok=True)

    def _half_way(self, among: Callable[[int], bool] = lambda worker: True) -> int | None:
        """A process in the middle of a training, some steps from either end."""
        done = Counter(step.training for step in self.steps())
        workers = [w for w, training in self.in_flight().items() if 40 < done[training] < 90]
        return next(filter(among, workers), None)

    def in_flight(self) -> dict[int, str]:
        """The latest training of each process that lives."""
        latest = {step.worker: step.training for step in self.steps()}
        return {worker: training for worker, training in latest.items() if is_alive(worker)}

    def taken_again(self, training: str) -> int:
        """Steps of a training that were taken again after its last one."""
        steps = self.steps()
        own = {step.state for step in steps if step.training == training}
        last = max(n for n, step in enumerate(steps) if step.training == training)
        return sum(step.state in own for step in steps[last + 1 :])

    def end(self) -> None:
        """End what is left of its sweeps, by process id."""
        for driver in self._drivers:
            for process in session(driver.pid):
                kill(process)
            driver.wait()


def wait_for(what: Callable[[], Any], why: Callable[[], str]) -> Any:
    """Ask until there is an answer."""
    begun = time.monotonic()
    while not (answer := what()):
        if time.monotonic() - begun > PATIENCE:
            pytest.fail(f"waited {PATIENCE} s for {why()}")
        time.sleep(0.02)
    return answer


def session(leader: int) -> dict[int, str]:
    """Processes of a session that live: id -> name."""
    found = {}
    for path in Path("/proc").iterdir():
        try:
            _, _, stat = (path / "stat").read_text().rpartition(") ")
            if int(stat.split()[3]) == leader and stat[0] != "Z":
                found[int(path.name)] = (path / "comm").read_text().strip()
        except (OSError, ValueError, IndexError):
            continue
    return found


def is_alive(process: int) -> bool:
    """Whether a process has not ended."""
    return Path(f"/proc/{process}").exists()


def parent(process: int) -> int:
    """The process that started it."""
    _, _, stat = Path(f"/proc/{process}/stat").read_text().rpartition(") ")
    return int(stat.split()[1])


def kill(process: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; to one that has ended, none."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


# The books


@dataclass(frozen=True)
class Books:
    """What became of a sweep, held against the undisturbed one.

    lost: rows of the report that are missing, or differ.
    doubled: rows that are there twice.
    levels_again: trainings that were trained to their last step, and were again.
    steps_again: steps trained again, of trainings that were in flight too.
    begun_again: trainings that were begun, or gone on with, another time.
    """

    trials: int
    lost: int
    doubled: int
    levels_again: int
    steps_again: int
    begun_again: int


def books(undisturbed: Swept, *swept: Swept) -> Books:
    """Those of the study, swept in one folder, or at once in several into one store."""
    steps = [step for each in swept for step in each.steps()]
    times = Counter(step.state for step in steps)
    due = undisturbed.steps()
    assert times.keys() <= {step.state for step in due}, "there are steps that none should take"
    last = {step.training: step.state for step in due}
    expected = [timeless(row) for row in undisturbed.report()]
    reports = [[timeless(row) for row in each.report()] for each in swept]
    return Books(
        trials=len({row["trial"] for row in expected}),
        lost=sum(not holds(rows, row) for rows in reports for row in expected),
        doubled=sum(len(rows) - len({named(row) for row in rows}) for rows in reports),
        levels_again=sum(max(0, times[state] - 1) for state in last.values()),
        steps_again=sum(count - 1 for count in times.values()),
        begun_again=len({step.training for step in steps}) - len(last),
    )  # fmt: skip


def sound(swept: Swept) -> bool:
    """Whether the store has no faults, and nothing that was for the time of a training alone."""
    store = open_store(str(swept.store))
    return not (
        [*find_faults(store)] or store.digests("checkpoints") or [*store.files.files("claims")]
    )


def timeless(row: Row) -> Row:
    """A record without what may differ between two equal sweeps."""
    return {
        k: v
        for k, v in row.items()
        if k not in ("study", "train_seconds", "search_seconds", "reused")
    }


def named(row: Row) -> tuple[Any, ...]:
    return row["trial"], row["level"], row["branch"]


def holds(rows: list[Row], row: Row) -> bool:
    """Whether a report has the record, to the bit; it may say more, of axes of its own."""
    return any(row.items() <= other.items() for other in rows if named(other) == named(row))
