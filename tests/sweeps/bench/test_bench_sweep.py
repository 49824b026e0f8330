"""What a sweep's driver keeps of finished trials; the figures themselves are `lth bench sweep`'s."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lth_core.store import Store
from sweeps.bench import sweep as bench_sweep
from sweeps.bench.sweep import Observation, ProcessTree, growth, lth, trials_done, watch
from sweeps.store.status import STATUS, status_key


def test_growth_is_between_an_early_and_a_late_share_of_the_trials() -> None:
    imports, report = [Observation(0, 50.0), Observation(19, 90.0)], [Observation(100, 400.0)]
    steady = [Observation(done, 100 + done / 16) for done in range(20, 100, 5)]
    found = growth([*imports, *steady, *report], 100)
    assert found == pytest.approx(1024 / 16)


def test_sweep_too_short_to_be_seen_has_no_growth() -> None:
    assert growth([], 100) is None
    assert growth([Observation(20, 100.0), Observation(100, 200.0)], 100) is None


def test_process_is_looked_at_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_sweep, "OBSERVE_INTERVAL", 0.01)
    command = [
        sys.executable,
        "-c",
        "import sys, time; print(flush=True); sys.stdin.read(); time.sleep(0.5)",
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as driver:
        assert driver.stdin
        assert driver.stdout
        driver.stdout.readline()
        end = driver.stdin.close
        seen = watch(driver, lambda: end() or 7)
    assert seen[0].done == 7
    assert seen[0].mib > 1


def test_interrupted_benchmark_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lth(str(tmp_path), "plan", "digits") as driver:
        raise KeyboardInterrupt
    assert driver.returncode == -signal.SIGTERM


def test_images_of_a_relative_path_are_found_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTH_DATA", "data")
    printer = tmp_path / "python"
    printer.write_text("#!/bin/sh\necho $LTH_DATA\n")
    printer.chmod(0o700)
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(sys, "executable", str(printer))
    with lth("folder"):
        pass
    assert Path("folder/out").read_text() == f"{tmp_path}/data\n"


def test_done_is_what_the_sweep_says_of_itself() -> None:
    store = Store()
    assert trials_done(store, "tiny") == 0
    store.put(STATUS, status_key("tiny"), {"done": 3})
    assert trials_done(store, "tiny") == 3


def test_cpu_time_is_that_of_a_process_and_of_those_that_it_started() -> None:
    """The child counts, and so does a process that has ended since it was observed."""
    burn = "import time\nwhile time.process_time() < 0.2: pass\n"
    both = f"import subprocess, sys; {burn!r}; subprocess.run([sys.executable, '-c', {burn + 'print(flush=True); input()'!r}])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", both], text=True, **pipes) as driver:
        tree = ProcessTree(driver.pid)
        assert driver.stdin
        assert driver.stdout
        driver.stdout.readline()
        tree.observe()
        driver.stdin.close()
        driver.wait()
    before = tree.cpu_seconds
    tree.observe()
    assert before == tree.cpu_seconds
    assert 0.15 < before < 5
