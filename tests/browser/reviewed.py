"""The study that is reviewed, and what is known of its UI."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

STUDY = """\
name: small
base:
  data: {name: digits}
  model: {widths: [32]}
  train: {steps: 60, evaluate_every: 30, lr: 0.005}
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


def wait_for(file: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    """A file's line, once it is there."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        if file.is_file() and file.read_text().endswith("\n"):
            return file.read_text().strip()
        time.sleep(0.1)
    raise AssertionError(log.read_text())
