"""What stands before a server, and hands its answers on late, or never."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from contextlib import suppress


class Proxy(socketserver.ThreadingTCPServer):
    """On loopback; whatever is asked is handed on at once.

    late: seconds from the latest question on a connection to its answer.
    answers: while it is not set, connections are taken and questions handed on, but no answer.
    """

    daemon_threads = True

    def __init__(self, behind: str, late: float = 0) -> None:
        """Stand before ``behind``, `http://HOST:PORT`."""
        host, _, port = behind.removeprefix("http://").rpartition(":")
        self.behind, self.late = (host, int(port)), late
        self.answers = threading.Event()
        self.answers.set()
        super().__init__(("127.0.0.1", 0), _Between)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *raised: object) -> None:
        self.answers.set()
        self.shutdown()
        self.server_close()


class _Between(socketserver.BaseRequestHandler):
    server: Proxy
    request: socket.socket
    asked = 0.0

    def handle(self) -> None:
        with socket.create_connection(self.server.behind) as behind, suppress(OSError):
            asking = threading.Thread(target=self._ask, args=(behind,), daemon=True)
            asking.start()
            while answer := behind.recv(2**16):
                self.server.answers.wait()
                time.sleep(max(0, self.asked + self.server.late - time.monotonic()))
                self.request.sendall(answer)

    def _ask(self, behind: socket.socket) -> None:
        with suppress(OSError):
            while question := self.request.recv(2**16):
                self.asked = time.monotonic()
                behind.sendall(question)
            behind.shutdown(socket.SHUT_RDWR)  # who asked has gone
