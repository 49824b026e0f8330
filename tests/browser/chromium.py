"""Chromium, driven by its DevTools protocol over a pair of pipes: no further package is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SECONDS = 60.0
"""Longest wait for an answer or for a page's content."""
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
    # Frames in the page's own process, where its DevTools session reaches them.
    "--disable-features=IsolateSandboxedIframes", "--disable-site-isolation-trials",
    "--remote-debugging-pipe", "about:blank",
]  # fmt: skip


class RefusedCallError(Exception):
    """A call that Chromium refuses, such as one to a frame that is just replaced by another."""


def installed() -> str | None:
    """Chromium's command, or None."""
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


class Chromium:
    """A running browser with one page."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._sent = read, write, b"", 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        self.call("Page.enable")
        self.call("Network.enable")
        self.view()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the page."""
        return self._call(method, self._session, **params)

    def view(
        self, width: int = 1600, height: int = 1200, scheme: str = "light", media: str = ""
    ) -> None:
        """Set the size of the window, the colour scheme, and the medium, such as print."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def log_in(self, authorization: str | None) -> None:
        """Send this header with each request; None: no header."""
        headers = {"Authorization": authorization} if authorization else {}
        self.call("Network.setExtraHTTPHeaders", headers=headers)

    def open(self, address: str) -> None:
        """Load a page anew."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)

    def js(self, expression: str, **where: Any) -> Any:
        """Value of a JavaScript expression."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            **where,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Value of an expression once it is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with suppress(RefusedCallError):
                if value := self.js(expression):
                    return value
            time.sleep(0.2)
        raise AssertionError(
            f"{expression} is not true on {self.js('location.href')}:\n{self.text()}"
        )

    def until_text(self, *texts: str) -> str:
        """The page's visible text, once the whole page is read and has these texts."""
        has = f"{json.dumps(texts)}.every(text => document.body?.innerText.includes(text))"
        self.until(f"document.readyState == 'complete' && {has}")
        return self.text()

    def text(self) -> str:
        """The page's visible text."""
        return str(self.js("document.body?.innerText"))

    def in_frame(self, expression: str) -> Any:
        """Value of an expression in the page's first frame, once it is there and the value is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with suppress(RefusedCallError):
                frames = self.call("Page.getFrameTree")["frameTree"].get("childFrames", [])
                for frame in frames[:1]:
                    world = self.call("Page.createIsolatedWorld", frameId=frame["frame"]["id"])
                    if value := self.js(expression, contextId=world["executionContextId"]):
                        return value
            time.sleep(0.2)
        raise AssertionError(f"{expression} is not true in a frame of {self.js('location.href')}")

    def picture(self, file: Path) -> Path:
        """Write a PNG of the window."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return file

    def print(self, file: Path) -> Path:
        """Write a PDF of the page, on A4."""
        printed = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        file.write_bytes(base64.b64decode(printed["data"]))
        return file

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(method)
            if answer.get("id") == self._sent:
                if "error" in answer:
                    raise RefusedCallError(method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, method: str) -> Mapping[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            assert ready, f"{method} is not answered"
            received = os.read(self._read, 1 << 20)
            assert received, f"Chromium has ended before it answered {method}"
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        answer: Mapping[str, Any] = json.loads(message)
        return answer


@contextmanager
def chromium(command: str, folder: Path) -> Iterator[Chromium]:
    """A running Chromium with a profile of its own; it ends with the block."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Chromium reads descriptor 3 and writes descriptor 4; the shell puts the pipes there.
    shell = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash"]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [*shell, command, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log,
        )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Chromium(ours_in, ours_out)
    finally:
        process.kill()
        process.wait(timeout=30)
        os.close(ours_in)
        os.close(ours_out)
