"""Opens a page of a server once the server answers.

`lth ui` becomes the server's process, so this runs beside it, as a process of its own that imports
no MLflow.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Mapping, Sequence
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

EVERY = 0.2
"""Seconds between two requests to a server that does not answer yet."""


def open_when_up(
    pages: Sequence[str], env: Mapping[str, str], *, browser: bool
) -> subprocess.Popen[bytes]:
    """Start a process that waits for this process's server, prints its page and opens it.

    Args:
        pages: addresses of one page, by several names of this machine.
        browser: whether to open the page, where there is a display.
    """
    command = [sys.executable, "-m", __name__, str(os.getpid()), str(int(browser)), *pages]
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)


def open_page(page: str) -> None:
    """Open a page in the user's browser; where there is no display, do nothing.

    Without a display Python's `webbrowser` would start a browser in the terminal.
    """
    elsewhere = sys.platform in ("darwin", "win32")
    if elsewhere or any(map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))):
        webbrowser.open(page)


def _main(server: int, browser: bool, pages: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it silently
    while os.getppid() == server:
        if up := [page for page in pages if _answers(page)]:
            sys.stdout.writelines(f"{page}\n" for page in up)
            sys.stdout.flush()
            if browser:
                open_page(up[0])
            return
        time.sleep(EVERY)


def _answers(page: str) -> bool:
    """Whether the server answers, be it with an error."""
    try:
        # The server is on this machine, so no proxy is asked.
        build_opener(ProxyHandler({})).open(page, timeout=5).close()
    except HTTPError:  # 401: it asks for a password
        return True
    except OSError:
        return False
    return True


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2] == "1", sys.argv[3:])
