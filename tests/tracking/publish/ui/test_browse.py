"""A page is printed and opened once its server answers, and never in a terminal's browser."""

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tracking.publish.ui.browse import open_page, open_when_up


class LateServer(HTTPServer):
    """A server that asks for a password, and refuses connections before it is started."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Unauthorized, bind_and_activate=False)
        self.server_bind()
        self.page = f"http://127.0.0.1:{self.server_address[1]}/#/experiments/1/runs"


class Unauthorized(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def late() -> Iterator[LateServer]:
    with LateServer() as server:
        yield server


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File in which the user's browser writes the pages that it opens."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    return tmp_path / "opened"


def wait_for(file: Path) -> str:
    for _ in range(300):
        if file.exists() and file.read_text():
            break
        time.sleep(0.05)
    return file.read_text()


@pytest.mark.slow
def test_the_page_is_printed_and_opened_once_the_server_answers(
    late: LateServer, opened: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    env = {
        **os.environ,
        "http_proxy": "http://127.0.0.1:9",
        "PYTHONPATH": str(Path(__file__).parents[4]),
    }
    waiting = open_when_up([late.page], env, browser=True)
    time.sleep(0.5)
    assert not opened.exists()
    assert capfd.readouterr().out == ""
    late.server_activate()
    thread = threading.Thread(target=late.handle_request)
    thread.start()
    assert wait_for(opened) == f"{late.page}\n"
    assert capfd.readouterr().out == f"{late.page}\n"
    thread.join()
    assert waiting.wait(timeout=30) == 0


def test_without_a_display_no_browser_is_started(
    opened: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("webbrowser.open", asked.append)
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    open_page("a-page")
    assert not asked
    monkeypatch.setenv("DISPLAY", ":0")
    open_page("a-page")
    assert asked == ["a-page"]
