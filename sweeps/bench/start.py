"""Benchmark of start-up: times of commands as multiples of `import torch`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lth_core.store import open_store
from sweeps.bench.report import fill
from sweeps.studies.find import find_study

ROUNDS = 5
"""Runs of each command; the fastest counts, because other work on the machine only slows runs."""

LIGHT, PLAN, REPORT = 0.25, 1.35, 3.0
"""Limits in multiples of `import torch`. If that takes 2 s, they are 0.5 s for commands that import
no torch, 2.7 s for a plan and 6 s for a report."""

TORCH = ["-c", "import torch"]
COMPLETION = "completion of a study's name"
COMMANDS: dict[str, tuple[list[str], float]] = {
    "--help": (["--help"], LIGHT),
    "--version": (["--version"], LIGHT),
    "studies": (["studies"], LIGHT),
    "list": (["list"], LIGHT),
    "schema": (["schema"], LIGHT),
    COMPLETION: ([], LIGHT),
    "plan digits": (["plan", "digits"], PLAN),
    "report digits": (["report", "digits", "tracking.uri=null"], REPORT),
}
"""Command -> its arguments, and its limit in multiples of `import torch`."""

COMPLETE = {"_LTH_COMPLETE": "complete_bash", "COMP_WORDS": "lth plan dig", "COMP_CWORD": "2"}
"""Environment variables with which bash requests completions."""


@dataclass(frozen=True)
class StartBench:
    """Wall times of processes in seconds, each the least of several runs."""

    torch: float
    """Time of `import torch`."""
    commands: Mapping[str, float]

    def ratios(self) -> dict[str, float]:
        """Times of the commands as multiples of `import torch`."""
        return {name: seconds / self.torch for name, seconds in self.commands.items()}


def bench_start(names: Mapping[str, object] = COMMANDS, rounds: int = ROUNDS) -> StartBench:
    """Times of commands and of `import torch`, with the digits study's records in the store."""
    torch, commands = float("inf"), dict.fromkeys(names, float("inf"))
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        study = find_study("digits")
        fill(study, open_store(os.path.join(folder, study.store)))
        for _ in range(rounds):
            torch = min(torch, _seconds(TORCH, folder))
            for name in names:
                environment = COMPLETE if name == COMPLETION else {}
                command = ["-m", "sweeps.cli", *COMMANDS[name][0]]
                seconds = _seconds(command, folder, environment)
                commands[name] = min(commands[name], seconds)
    return StartBench(torch, commands)


def _seconds(
    command: list[str], folder: str, environment: Mapping[str, str] | None = None
) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], cwd=folder, env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return time.perf_counter() - start
