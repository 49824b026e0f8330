"""MLflow servers for tests: PostgreSQL from Debian's packages, MLflow itself, and one that fails."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from servers import BUCKET, S3Server

from tracking.publish import names

PORTS, WORKERS = range(20_000, 32_000), 16
"""Linux gives a connection a higher port, Ray a worker a lower one: a server that was killed finds
its own free when it starts again. Each of up to `WORKERS` pytest workers has ports of its own."""


def own_ports() -> Iterator[int]:
    """This pytest worker's ports, in an order of this process's own, each once."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = PORTS[worker % WORKERS :: WORKERS]
    yield from random.SystemRandom().sample(own, len(own))


_ports = own_ports()


def free_port() -> int:
    """A free port of loopback, given once."""
    for port in _ports:
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")


def postgres_tools() -> Path | None:
    """The folder of initdb and postgres, or None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve())
    return found[-1].parent if found else None


@contextmanager
def postgres(tools: Path) -> Iterator[str]:
    """A PostgreSQL of its own on a Unix socket, in no network at all; yields its address.

    PostgreSQL refuses to run as root, so there it runs as `postgres`.
    """
    folder = Path(tempfile.mkdtemp(prefix="lth-pg-"))
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    said = {"stdout": subprocess.DEVNULL, "cwd": folder, **as_user}
    data = folder / "data"
    make = [tools / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(make, check=True, **said)  # type: ignore[call-overload]
    serve = [tools / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-F"]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(serve, stderr=log, **said)  # type: ignore[call-overload]
    try:
        ready = [tools / "pg_isready", "-q", "-h", folder, "-U", "postgres"]
        while subprocess.run(ready).returncode:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql+psycopg2:///postgres?host={folder}&user=postgres"
    finally:
        process.send_signal(signal.SIGINT)  # fast: it waits for no client
        process.wait(timeout=120)
        log.close()
        shutil.rmtree(folder)


class MlflowServer:
    """An MLflow server on loopback that can be killed and started again at its address."""

    def __init__(self, folder: Path, database: str, artifacts: str, env: Mapping[str, str]) -> None:
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        # A database's address holds a password, and the command line can be seen by all.
        self._env = {**os.environ, **env, "MLFLOW_BACKEND_STORE_URI": database,
                     "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
                     "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
                   "--port", str(self._port), "--workers", "1"]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._env, stdout=log, stderr=log, cwd=self._folder,
                start_new_session=True,
            )  # fmt: skip
        wait_until_up(self.uri, self._process, self._folder / "log")

    def kill(self) -> None:
        """kill -9, its worker process too."""
        with suppress(ProcessLookupError):  # killed before
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=120)


def wait_until_up(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers; it must not end before that."""
    for _ in range(3000):
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@contextmanager
def mlflow_server(
    folder: Path, database: str, artifacts: str, env: Mapping[str, str] | None = None
) -> Iterator[MlflowServer]:
    """An MLflow server that hands artifacts on to ``artifacts``, a folder or s3://..."""
    server = MlflowServer(folder, database, artifacts, env or {})
    try:
        yield server
    finally:
        server.kill()


class FaultyServer(ThreadingHTTPServer):
    """A proxy before a server, with a fault.

    none: it forwards all calls; slow: it answers after `delay` seconds; broken: it answers 500 and
    forwards nothing; lost: it forwards the call and answers 500; down: it ends the connection
    without an answer. While `answers` is not set, all callers wait, whatever the fault.
    """

    daemon_threads = True

    def __init__(self, behind: str, delay: float = 5) -> None:
        self.behind, self.delay, self.fault, self.asked = behind, delay, "none", 0
        self.answers = threading.Event()
        self.answers.set()
        self._then: tuple[int, str] | None = None
        super().__init__(("127.0.0.1", 0), _Faulty)
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"

    def fail_after(self, calls: int, fault: str) -> None:
        """Have the fault from the call on that comes after `calls` more."""
        self._then = (self.asked + calls, fault)

    def count(self) -> str:
        """Count a call; the fault with which it is answered."""
        if self._then and self.asked == self._then[0]:
            self.fault, self._then = self._then[1], None
        self.asked += 1
        return self.fault


class _Faulty(BaseHTTPRequestHandler):
    server: FaultyServer

    def answer(self) -> None:
        faulty = self.server
        fault = faulty.count()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        faulty.answers.wait()
        if fault == "down":
            return
        if fault == "slow":
            time.sleep(faulty.delay)
        status, content = 500, b'{"error_code": "INTERNAL_ERROR", "message": "broken"}'
        if fault != "broken":
            said, content_behind = self.ask(body)
            status, content = (status, content) if fault == "lost" else (said, content_behind)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def ask(self, body: bytes) -> tuple[int, bytes]:
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        request = urllib.request.Request(
            self.server.behind + self.path, body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def contents(uri: str, experiment: str) -> dict[str, tuple[Any, ...]]:
    """Status, params, metric histories and files of an experiment's trials, by key."""
    from mlflow import MlflowClient

    client, found = MlflowClient(uri), {}
    runs = client.search_runs([experiment], f"tags.`{names.KEY}` != ''")
    for run in runs:
        histories = {
            key: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))
            for key in run.data.metrics
        }
        folders = [a.path for a in client.list_artifacts(run.info.run_id) if a.is_dir]
        files = {
            # The records in `curves.json` name the study.
            (a.path, None if a.path.endswith("/curves.json") else a.file_size)
            for folder in folders
            for a in client.list_artifacts(run.info.run_id, folder)
        }
        held = (run.info.status, dict(run.data.params), histories, files)
        found[run.data.tags[names.KEY]] = held
    assert len(found) == len(runs), "a trial has two runs"
    return found


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server on an SQLite file, for all tests of a process."""
    folder = tmp_path_factory.mktemp("server")
    database = f"sqlite:///{folder}/mlflow.db"
    with mlflow_server(folder, database, str(folder / "artifacts")) as served:
        yield served.uri


@pytest.fixture
def faulty(server: str) -> Iterator[FaultyServer]:
    """A proxy before that server which fails when a test sets its fault."""
    with FaultyServer(server) as before:
        thread = threading.Thread(target=before.serve_forever, daemon=True)
        thread.start()
        yield before
        before.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def at_scale(
    s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    """An MLflow server on PostgreSQL that keeps artifacts in S3, to which it alone has keys."""
    tools = postgres_tools()
    if tools is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    env = {**s3_server.variables, "MLFLOW_S3_ENDPOINT_URL": s3_server.address}
    folder = tmp_path_factory.mktemp("at-scale")
    with (
        postgres(tools) as database,
        mlflow_server(folder, database, f"s3://{BUCKET}/mlflow", env) as served,
    ):
        yield served
