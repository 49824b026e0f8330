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

import pytest

from lth_core.store import locks as claims
from lth_core.store.files import Files, MemoryFiles
from lth_core.store.folder import FolderFiles
from lth_core.store.locks import SETTLING, claimed, myself

TRAIN = """
import sys, time
from pathlib import Path
from lth_core.store.locks import claimed
from lth_core.store.folder import FolderFiles
from lth_core.store import make_folder
root, gate, seconds, lease = Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:])
files = FolderFiles(make_folder(root / "store"))
print("ready", flush=True)
while not gate.exists():
    time.sleep(0.001)
with claimed(files, "job", lambda: (root / "done").exists(), lease) as mine:
    print("mine" if mine else "another's", flush=True)
    if mine:
        time.sleep(seconds)
        (root / "done").touch()
"""


Process = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """Starts processes that each ask for the claim, and train for so many seconds.

    One says that it is ready when it has imported all, and asks once its gate is there: by
    default at once.
    """
    with ExitStack() as stack:

        def start(
            seconds: float, lease: float = 60, gate: Path = tmp_path
        ) -> subprocess.Popen[str]:
            said_to_it = map(str, (tmp_path, gate, seconds, lease))
            arguments = [sys.executable, "-c", TRAIN, *said_to_it]
            begun = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
            stack.enter_context(begun)
            stack.callback(begun.kill)
            return begun

        yield start


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def claim(root: Path) -> Path:
    return root / "store/claims/job/claim.json"


@pytest.mark.slow
def test_of_many_processes_that_ask_at_once_one_trains_and_the_others_wait_for_it(
    process: Process, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    every = [process(2, gate=gate) for _ in range(4)]
    assert [said(each) for each in every] == ["ready"] * 4
    gate.touch()
    answers = [said(each) for each in every]
    assert sorted(answers) == ["another's"] * 3 + ["mine"]
    assert [each.wait(120) for each in every] == [0] * 4
    assert not claim(tmp_path).exists()


@pytest.mark.slow
def test_a_killed_holder_of_this_machine_is_followed_at_once(process: Process) -> None:
    first = process(600)
    assert [said(first), said(first)] == ["ready", "mine"]
    second = process(0)
    assert said(second) == "ready"
    first.kill()
    first.wait()
    begun = time.monotonic()
    assert said(second) == "mine"
    assert time.monotonic() - begun < 30, "half a lease"
    assert second.wait(120) == 0


@pytest.mark.slow
def test_a_holder_that_renews_its_claim_keeps_it_beyond_the_lease(
    process: Process, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first, second = process(12, lease=10), process(0, lease=10, gate=gate)
    assert [said(first), said(first), said(second)] == ["ready", "mine", "ready"]
    gate.touch()
    assert said(second) == "another's"
    assert [first.wait(120), second.wait(120)] == [0, 0]


@pytest.mark.slow
def test_a_holder_that_stopped_for_longer_than_its_lease_leaves_the_claim_to_its_follower(
    process: Process, tmp_path: Path
) -> None:
    first, second = process(1, lease=5), process(600, lease=5, gate=tmp_path / "gate")
    assert [said(first), said(first), said(second)] == ["ready", "mine", "ready"]
    first.send_signal(signal.SIGSTOP)
    (tmp_path / "gate").touch()
    assert said(second) == "mine"
    first.send_signal(signal.SIGCONT)
    assert first.wait(120) == 0, "its training is done too"
    assert json.loads(claim(tmp_path).read_bytes())["process"] == second.pid


# The contract, over every place: threads ask at once


@pytest.fixture
def digests(files: Files, monkeypatch: pytest.MonkeyPatch) -> str:
    """Jobs that are asked for. A busy machine may take its time between look and write."""
    monkeypatch.setattr(claims, "SETTLING", 1.5)
    return "abc" if files.exclusive else "a"


DEAD = json.dumps({**myself(), "born": "long ago", "token": "dead"}).encode()


def trainings(files: Files, digests: Sequence[str]) -> Counter[str]:
    """How often each job is trained where four ask for each, all of them at once."""
    done, trained = set[str](), list[str]()
    start = threading.Barrier(4 * len(digests))

    def ask(digest: str) -> None:
        start.wait()
        with claimed(files, digest, lambda: digest in done) as mine:
            if mine:
                trained.append(digest)
                time.sleep(1)
                done.add(digest)

    threads = [threading.Thread(target=ask, args=(digest,)) for digest in [*digests] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(trained)


def test_of_many_that_ask_at_once_one_trains(files: Files, digests: str) -> None:
    assert trainings(files, digests) == Counter(digests)
    assert not list(files.files(""))


def test_of_many_that_find_a_holder_dead_one_trains(files: Files, digests: str) -> None:
    for digest in digests:
        files.write(f"claims/{digest}/claim.json", DEAD)
    assert trainings(files, digests) == Counter(digests)
    assert not list(files.files(""))


def test_of_many_one_trains_where_several_may_create_the_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "SETTLING", 1.5)

    class Hasty(MemoryFiles):
        """Looks whether there is one, and writes a moment later: as S3."""

        exclusive = False

        def create(self, path: str, content: bytes) -> bool:
            if self.read(path):
                return False
            time.sleep(0.05)
            self.write(path, content)
            return True

    assert trainings(Hasty(), "abc") == Counter("abc")


def test_claim_that_nobody_else_asks_for_is_had_without_waiting_where_creation_is_exclusive(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()
    monkeypatch.setattr("lth_core.store.locks.time.sleep", waits.append)
    with claimed(files, "job", lambda: False) as mine:
        assert mine
    assert waits == [] if files.exclusive else [SETTLING]


def test_claim_that_was_taken_over_is_left_to_who_has_it(files: Files) -> None:
    path, theirs = "claims/job/claim.json", b'{"token": "theirs"}'
    with claimed(files, "job", lambda: False, lease=12) as mine:  # a beat every 2 s
        assert mine
        files.write(path, theirs)
        (heart,) = (t for t in threading.enumerate() if t.name.endswith("(_renew)"))
        heart.join(60)
        assert not heart.is_alive(), "it has seen theirs, and writes no more"
        assert files.read(path) == theirs
    assert files.read(path) == theirs


def test_claim_that_was_swept_away_is_renewed_all_the_same(files: Files) -> None:
    with claimed(files, "job", lambda: False, lease=0.3) as mine:
        assert mine
        files.delete("claims/job")
        patience = time.monotonic() + 60
        while not files.read("claims/job/claim.json"):
            assert time.monotonic() < patience
            time.sleep(0.01)
    assert files.read("claims/job/claim.json") is None


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"machine": "elsewhere", "process": 1}'])
def test_a_claim_that_is_not_renewed_runs_out_whatever_it_says(left: bytes) -> None:
    files = MemoryFiles()
    assert files.create("claims/job/claim.json", left)
    begun = time.monotonic()
    with claimed(files, "job", lambda: False, lease=0.3) as mine:
        assert mine
        assert time.monotonic() - begun > 0.3
    assert files.read("claims/job/claim.json") is None


def test_what_was_finished_while_one_waited_is_not_claimed(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    with claimed(files, "job", lambda: True) as mine:
        assert not mine
    assert not list(files.files(""))


def test_a_claim_ends_with_what_it_was_for_also_where_that_fails() -> None:
    files = MemoryFiles()

    def fail() -> None:
        with claimed(files, "job", lambda: False):
            assert files.read("claims/job/claim.json")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert files.read("claims/job/claim.json") is None
