"""Claims between real processes: one trains, the others wait, and no dead one is waited for."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from lth_core.store import locks, make_folder
from lth_core.store.files import Files, MemoryFiles
from lth_core.store.folder import FolderFiles
from lth_core.store.locks import LEASE, SETTLING, claimed, this_process

TRAIN = """
import sys, time
from pathlib import Path
from lth_core.store import locks, make_folder
from lth_core.store.folder import FolderFiles
locks.LONGEST_PAUSE = 0.1
root, gate, seconds, lease = Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:])
files = FolderFiles(make_folder(root / "store"))
print("ready", flush=True)
while not gate.exists():
    time.sleep(0.001)
with locks.claimed(files, "job", lambda: (root / "done").exists(), lease) as mine:
    print("mine" if mine else "another's", flush=True)
    if mine:
        time.sleep(seconds)
        (root / "done").touch()
"""


Process = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """Starts a process that claims the job and trains it for some seconds.

    It prints "ready" after its imports, and asks for the claim once the file `gate` exists.
    """
    with ExitStack() as stack:

        def start(
            seconds: float, lease: float = 60, gate: Path = tmp_path
        ) -> subprocess.Popen[str]:
            arguments = map(str, (tmp_path, gate, seconds, lease))
            started = subprocess.Popen(
                [sys.executable, "-c", TRAIN, *arguments], stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(started)
            stack.callback(started.kill)
            return started

        yield start


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def claim(root: Path) -> Path:
    return root / "store/claims/job/claim.json"


@pytest.mark.slow
def test_one_of_several_processes_trains_and_the_others_wait_for_it(
    process: Process, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    every = [process(1, gate=gate) for _ in range(4)]
    assert [line_of(each) for each in every] == ["ready"] * 4
    gate.touch()
    answers = [line_of(each) for each in every]
    assert sorted(answers) == ["another's"] * 3 + ["mine"]
    assert [each.wait(120) for each in every] == [0] * 4
    assert not claim(tmp_path).exists()


@pytest.mark.slow
def test_a_killed_holder_of_this_machine_is_followed_at_once(process: Process) -> None:
    first = process(600)
    assert [line_of(first), line_of(first)] == ["ready", "mine"]
    second = process(0)
    assert line_of(second) == "ready"
    first.kill()
    first.wait()
    started = time.monotonic()
    assert line_of(second) == "mine"
    assert time.monotonic() - started < 30, "half a lease"
    assert second.wait(120) == 0


@pytest.mark.slow
def test_a_holder_that_renews_its_claim_keeps_it_beyond_the_lease(
    process: Process, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first, second = process(3, lease=2.5), process(0, lease=2.5, gate=gate)
    assert [line_of(first), line_of(first), line_of(second)] == ["ready", "mine", "ready"]
    gate.touch()
    assert line_of(second) == "another's"
    assert [first.wait(120), second.wait(120)] == [0, 0]


@pytest.mark.slow
def test_a_holder_that_stopped_for_longer_than_its_lease_leaves_the_claim_to_its_follower(
    process: Process, tmp_path: Path
) -> None:
    first, second = process(1, lease=1), process(600, lease=1, gate=tmp_path / "gate")
    assert [line_of(first), line_of(first), line_of(second)] == ["ready", "mine", "ready"]
    first.send_signal(signal.SIGSTOP)
    (tmp_path / "gate").touch()
    assert line_of(second) == "mine"
    first.send_signal(signal.SIGCONT)
    assert first.wait(120) == 0, "its training is done too"
    assert json.loads(claim(tmp_path).read_bytes())["process"] == second.pid


# The contract, over every place: threads ask at once


class Clock:
    """Time that passes only while all threads that use it sleep: no real wait, on no machine."""

    def __init__(self, threads: int) -> None:
        self.now, self.awake, self.alarms = 0.0, threads, list[float]()
        self.changed = threading.Condition()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.changed:
            alarm = self.now + seconds
            self.alarms.append(alarm)
            self._rest()
            self.changed.wait_for(lambda: self.now >= alarm)

    def leave(self) -> None:
        """End of a thread that others no longer wait for."""
        with self.changed:
            self._rest()

    def _rest(self) -> None:
        self.awake -= 1
        if not self.awake and self.alarms:
            self.now = min(self.alarms)
            self.awake = self.alarms.count(self.now)
            self.alarms = [alarm for alarm in self.alarms if alarm > self.now]
            self.changed.notify_all()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Clock]:
    """Gives the locks a clock for a number of threads."""

    def set_clock(threads: int) -> Clock:
        clock = Clock(threads)
        monkeypatch.setattr(locks, "time", clock)
        return clock

    return set_clock


SetClock = Callable[[int], Clock]
DEAD = json.dumps({**this_process(), "born": "long ago", "token": "dead"}).encode()


def trainings(files: Files, digests: Sequence[str], set_clock: SetClock) -> Counter[str]:
    """How often each job is trained where four threads ask for each, all at once."""
    done, trained = set[str](), list[str]()
    askers = 4 * len(digests)
    start, clock = threading.Barrier(askers), set_clock(askers)

    def ask(digest: str) -> None:
        start.wait()
        try:
            with claimed(files, digest, lambda: digest in done) as mine:
                if mine:
                    trained.append(digest)
                    clock.sleep(1)
                    done.add(digest)
        finally:
            clock.leave()

    threads = [threading.Thread(target=ask, args=(digest,)) for digest in [*digests] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(trained)


def test_one_of_four_that_ask_at_once_trains(files: Files, clock: SetClock) -> None:
    assert trainings(files, "abc", clock) == Counter("abc")
    assert not list(files.files(""))


def test_one_of_four_that_find_the_holder_dead_trains(files: Files, clock: SetClock) -> None:
    for digest in "abc":
        files.write(f"claims/{digest}/claim.json", DEAD)
    assert trainings(files, "abc", clock) == Counter("abc")
    assert not list(files.files(""))


def test_one_of_four_trains_where_several_may_create_the_claim(clock: SetClock) -> None:
    class Hasty(MemoryFiles):
        """Looks whether the claim exists, and writes a moment later: as S3."""

        exclusive = False

        def create(self, path: str, content: bytes) -> bool:
            if self.read(path):
                return False
            time.sleep(0.05)
            self.write(path, content)
            return True

    assert trainings(Hasty(), "abc", clock) == Counter("abc")


def test_claim_without_rivals_is_had_at_once_where_creation_is_exclusive(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()
    monkeypatch.setattr("lth_core.store.locks.time.sleep", waits.append)
    with claimed(files, "job", lambda: False) as mine:
        assert mine
    assert waits == [] if files.exclusive else [SETTLING]


def test_claim_that_was_taken_over_is_left_to_its_new_holder(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, theirs = "claims/job/claim.json", b'{"token": "theirs"}'
    taken_over = threading.Event()

    class Renewal(threading.Event):
        """Beats as soon as the claim was taken over, and not before."""

        def wait(self, timeout: float | None = None) -> bool:
            taken_over.wait(60)
            return super().wait(0.01)

    threads = SimpleNamespace(Thread=threading.Thread, Event=Renewal)
    monkeypatch.setattr(locks, "threading", threads)
    with claimed(files, "job", lambda: False) as mine:
        assert mine
        files.write(path, theirs)
        (heart,) = (t for t in threading.enumerate() if t.name.endswith("(_renew)"))
        taken_over.set()
        heart.join(60)
        assert not heart.is_alive(), "it has seen theirs, and writes no more"
        assert files.read(path) == theirs
    assert files.read(path) == theirs


def test_claim_that_was_deleted_is_renewed_all_the_same(files: Files) -> None:
    with claimed(files, "job", lambda: False, lease=0.3) as mine:
        assert mine
        files.delete("claims/job")
        patience = time.monotonic() + 60
        while not files.read("claims/job/claim.json"):
            assert time.monotonic() < patience
            time.sleep(0.01)
    assert files.read("claims/job/claim.json") is None


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"machine": "elsewhere", "process": 1}'])
def test_claim_that_is_not_renewed_expires_whatever_its_content(
    left: bytes, clock: SetClock
) -> None:
    files, time_of_locks = MemoryFiles(), clock(1)
    assert files.create("claims/job/claim.json", left)
    with claimed(files, "job", lambda: False) as mine:
        assert mine
        assert LEASE < time_of_locks.now < LEASE + 5
    assert files.read("claims/job/claim.json") is None


def test_job_that_was_finished_while_one_waited_is_not_claimed(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    with claimed(files, "job", lambda: True) as mine:
        assert not mine
    assert not list(files.files(""))


def test_claim_ends_with_its_block_also_where_that_fails() -> None:
    files = MemoryFiles()

    def fail() -> None:
        with claimed(files, "job", lambda: False):
            assert files.read("claims/job/claim.json")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert files.read("claims/job/claim.json") is None


@pytest.mark.slow
def test_claim_that_could_not_be_released_is_taken_over_by_its_own_process(tmp_path: Path) -> None:
    """A store that was away for a while does not delay each of its trainings by a lease."""
    files = FolderFiles(make_folder(tmp_path / "store"))
    with claimed(files, "job", bool) as acquired:
        assert acquired
        (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "store")
    assert [*files.files("claims")]
    started = time.monotonic()
    with claimed(files, "job", bool) as acquired:
        assert acquired
        with claimed(files, "job", bool, wait=False) as twice:
            assert not twice
    assert time.monotonic() - started < LEASE / 2
    assert [*files.files("claims")] == []
