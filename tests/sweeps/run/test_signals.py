"""Signals that end a Tuner's run, and workers that are let to keep what they train. No Ray here."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps.run.signals import (
    InterruptedSweepError,
    is_interrupted,
    raise_on_signal,
    save_on_signal,
    save_workers,
)

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]

RAYLET = """
import subprocess, sys
subprocess.run([sys.argv[1], "-c", sys.argv[2]], executable=sys.executable)
"""
WORKER = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *told: pathlib.Path("told").touch())
pathlib.Path("up").touch()
while not pathlib.Path("told").exists() {forever}:
    time.sleep(0.01)
pathlib.Path("saved").touch()
"""


@pytest.fixture(autouse=True)
def without_nohup() -> Iterator[None]:
    """These tests may run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_sighup_that_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with save_on_signal(save_workers):
        signal.raise_signal(signal.SIGHUP)
        assert not is_interrupted()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_another_thread_handles_no_signals() -> None:
    before, ended = handlers(), list[object]()

    def run() -> None:
        with raise_on_signal(), save_on_signal(save_workers):
            ended.append(handlers())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ended == [before]


def handlers() -> list[object]:
    return [signal.getsignal(number) for number, _ in SIGNALS]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_tuner_that_is_told_to_end_comes_to_its_end_first(number: int, code: int) -> None:
    before, said = handlers(), []

    def tuner() -> None:
        with save_on_signal(save_workers):
            said.append(is_interrupted())
            signal.raise_signal(number)
            said.append(is_interrupted())

    with pytest.raises(InterruptedSweepError) as ended:
        tuner()
    assert said == [False, True]
    assert ended.value.code == code
    assert handlers() == before
    with save_on_signal(save_workers):  # the next one is not told by that
        assert not is_interrupted()


def test_tuner_that_is_told_twice_ends_at_once() -> None:
    def tuner() -> None:
        with save_on_signal(save_workers):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")

    with pytest.raises(InterruptedSweepError) as ended:
        tuner()
    assert ended.value.code == 130


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_what_is_no_tuner_ends_at_once(number: int, code: int) -> None:
    before = handlers()

    def report() -> None:
        with raise_on_signal():
            signal.raise_signal(number)
            pytest.fail("it went on")

    with pytest.raises(InterruptedSweepError) as ended:
        report()
    assert ended.value.code == code
    assert handlers() == before


@pytest.fixture
def worker(here: Path) -> Iterator[Callable[..., None]]:
    """Starts a process with the name of a worker's, whose parent is a child of this one."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, forever: str = "") -> None:
        code = WORKER.format(forever=forever)
        started.append(
            subprocess.Popen([sys.executable, "-c", RAYLET, name, code], start_new_session=True)
        )
        while not (here / "up").exists():
            pass

    yield start
    for raylet in started:
        os.killpg(raylet.pid, signal.SIGKILL)
        raylet.wait()


@pytest.mark.parametrize("name", ["ray::ResourceTrainable.train", "ray::Worker.train"])
def test_worker_that_trains_is_told_and_waited_for(
    name: str, worker: Callable[..., None], here: Path
) -> None:
    worker(name)
    save_workers(timeout=600)
    assert (here / "saved").exists()


@pytest.mark.parametrize("name", ["ray::Worker", "ray::IDLE", "python"])
def test_process_that_trains_nothing_is_not_told(
    name: str, worker: Callable[..., None], here: Path
) -> None:
    worker(name)
    save_workers(timeout=600)
    assert not (here / "told").exists()


def test_worker_that_does_not_get_done_is_not_waited_for_for_good(
    worker: Callable[..., None], here: Path
) -> None:
    worker("ray::Worker.train", forever="or True")
    save_workers(timeout=0.1)
    assert not (here / "saved").exists()
