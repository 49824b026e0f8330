"""One study, swept once, its UI behind a password, and one browser, for all tests of a process."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chromium import Chromium, chromium, installed
from servers_mlflow import free_port

STUDY = """\
name: small
base:
  data: {name: digits}
  model: {widths: [32]}
  train: {steps: 60, evaluate_every: 30, lr: 0.01}
  prune: {fraction: 0.5}
  levels: 2
  branches: [ticket, reinit]
axes:
  seed: [0, 1, 2]
  rewind: [0, 5]
verdict: {margin: 0.05}
"""
"""Tickets win in one cell; about 15 s of one CPU."""
PASSWORD = "planted-horse-battery"
ADMIN = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
SECONDS = 120.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)


@dataclass(frozen=True)
class Served:
    """The study's UI, as `lth ui` has opened it."""

    page: str
    """Address that was opened in the browser."""
    folder: Path
    printed: str

    @property
    def root(self) -> str:
        """Address of MLflow."""
        return self.page.partition("/#/")[0]

    @property
    def report(self) -> str:
        """Address of the report's file."""
        return (self.folder / "lth-studies" / "small" / "report.html").as_uri()


def environment(folder: Path) -> dict[str, str]:
    """Environment with a browser that writes the address which it is given to a file."""
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {folder}/opened\n')
    browser.chmod(0o755)
    return {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "BROWSER": str(browser),
        "LTH_CACHE": str(folder / "cache"), "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    command = installed()
    if command is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with chromium(command, tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="session")
def served(browser: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The study swept, and `lth ui --auth` on it; requires the browser first, to skip at once."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(STUDY)
    env = environment(folder)
    sweep = [sys.executable, "-m", "sweeps.cli", "sweep", "small.yaml", "--serial"]
    subprocess.run(sweep, cwd=folder, env=env, check=True, capture_output=True)
    command = [
        sys.executable,
        "-m",
        "sweeps.cli",
        "ui",
        "small",
        "--auth",
        "--port",
        str(free_port()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        page = wait_for(folder / "opened", process, folder / "log")
        yield Served(page, folder, (folder / "log").read_text())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def wait_for(file: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    """A file's line, once it is there."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        if file.is_file() and file.read_text().endswith("\n"):
            return file.read_text().strip()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture
def signed_in(browser: Chromium, served: Served) -> Iterator[Chromium]:
    """The browser with the password, in a wide window."""
    browser.view()
    browser.log_in(ADMIN)
    yield browser
    browser.log_in(None)
