"""An S3 on loopback for tests: moto's server in a process of its own, over real HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

BUCKET = "lth-tests"


@dataclass(frozen=True)
class S3Server:
    """address: of its endpoint; log: a line for every request."""

    address: str
    log: Path
    process: subprocess.Popen[bytes]

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"{self.address}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=120).close()

    def requests(self) -> list[str]:
        """Every request so far: `GET /bucket/key`."""
        return re.findall(r'"[^A-Z"]*([A-Z]+ /\S*) HTTP', self.log.read_text())

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a client."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def s3_on_loopback(folder: Path, **environment: str) -> Iterator[S3Server]:
    """Start one with an empty bucket `BUCKET`, and end it.

    Args:
        environment: for moto, such as INITIAL_NO_AUTH_ACTION_COUNT=1: all but making the bucket
            is denied.
    """
    log = folder / "s3.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment},
        )  # fmt: skip
    try:
        patience = time.monotonic() + 240
        while not (found := re.search(r"Running on (http://127.0.0.1:\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < patience, log.read_text()
            time.sleep(0.05)
        server = S3Server(found[1], log, process)
        server.make_bucket(BUCKET)
        yield server
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The S3 of all tests of a process; each test takes a prefix of its own."""
    with s3_on_loopback(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The address of an empty store in S3, `s3://bucket/prefix`; the environment leads there."""
    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.parent.name}-{tmp_path.name}"
