"""Claims between real processes: one trains, the others wait, and no dead one is waited for."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lth_core.claims import claimed
from lth_core.files import FolderFiles, MemoryFiles

TRAIN = """
import sys, time
from pathlib import Path
from lth_core.claims import claimed
from lth_core.files import FolderFiles
root, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
files = FolderFiles(root / "store")
print("ready", flush=True)
with claimed(files, "job", lambda: (root / "done").exists(), lease=float(sys.argv[4])) as mine:
    print("mine" if mine else "another's", flush=True)
    if mine:
        time.sleep(seconds)
        (root / "done").touch()
"""


Process = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """Starts processes that each ask for the claim, and train for so many seconds."""
    with ExitStack() as stack:

        def start(name: str, seconds: float, lease: float = 60) -> subprocess.Popen[str]:
            arguments = [sys.executable, "-c", TRAIN, str(tmp_path), name, str(seconds), str(lease)]
            begun = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
            stack.enter_context(begun)
            stack.callback(begun.kill)
            assert said(begun) == "ready"
            return begun

        yield start


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def claim(root: Path) -> Path:
    return root / "store/claims/job/claim.json"


@pytest.mark.slow
def test_of_many_processes_one_trains_and_the_others_wait_for_it(
    process: Process, tmp_path: Path
) -> None:
    every = [process(str(number), 0.5) for number in range(4)]
    answers = [said(each) for each in every]
    assert sorted(answers) == ["another's"] * 3 + ["mine"]
    assert [each.wait(20) for each in every] == [0] * 4
    assert not claim(tmp_path).exists()


@pytest.mark.slow
def test_a_killed_holder_of_this_machine_is_followed_at_once(process: Process) -> None:
    first = process("first", 600)
    assert said(first) == "mine"
    second = process("second", 0)
    first.kill()
    first.wait()
    begun = time.monotonic()
    assert said(second) == "mine"
    assert time.monotonic() - begun < 30, "half a lease"
    assert second.wait(20) == 0


@pytest.mark.slow
def test_a_holder_that_renews_its_claim_keeps_it_beyond_the_lease(process: Process) -> None:
    first = process("first", 3, lease=1)
    assert said(first) == "mine"
    second = process("second", 0, lease=1)
    assert said(second) == "another's"
    assert [first.wait(20), second.wait(20)] == [0, 0]


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
