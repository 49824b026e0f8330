"""One study, swept once, its UI behind a password, and one browser, for all tests of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, chromium, installed
from reviewed import ADMIN, STUDY, Served, environment, wait_for
from servers_mlflow import free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)


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


@pytest.fixture
def signed_in(browser: Chromium, served: Served) -> Iterator[Chromium]:
    """The browser with the password, in a wide window."""
    browser.view()
    browser.log_in(ADMIN)
    yield browser
    browser.log_in(None)
