"""Benchmark of `lth plan`: a hundred thousand trials are listed, filtered and estimated."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGE: dict[str, Any] = {
    "name": "bench-plan",
    "base": {"model": {"name": "mlp", "widths": [300, 100]}, "train": {"steps": "600it"},
             "levels": 5, "branches": ["ticket", "reinit", "random_mask"]},
    "axes": {
        "seed": list(range(10)),
        "model.width": [number / 10 for number in range(1, 11)],
        "prune.fraction": [number / 20 for number in range(1, 11)],
        "rewind": [f"{number * 10}it" for number in range(10)],
        "train.lr": [number / 2000 for number in range(1, 11)],
    },
    "tracking": {"uri": None},
}  # fmt: skip
"""A study of 100,000 trials on the digits; JSON is YAML."""
SECONDS, MIB = 10, 1024
"""Limits of time and memory."""

CHILD = """
import re, sys, time
from pathlib import Path
from sweeps.cli.main import main
try:
    main()
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    sys.stderr.write(f"{time.process_time()} {int(peak) / 1024}")
"""
"""The command line, which prints CPU seconds and its peak memory in MiB at its end."""


@dataclass(frozen=True)
class PlanBench:
    """Seconds and memory of one `lth plan --list` in its own process, imports included."""

    trials: int
    """Number of listed lines."""
    seconds: float
    cpu_seconds: float
    peak_mib: float
    """Peak memory of the process."""

    @property
    def within(self) -> bool:
        """Whether time and memory are within their limits."""
        return self.seconds < SECONDS and self.peak_mib < MIB


def bench_plan(study: Mapping[str, Any] = LARGE, where: Sequence[str] = ()) -> PlanBench:
    """List, filter and estimate a study.

    Args:
        where: conditions; by default the study's first axis has one of all its values.
    """
    field, values = next(iter(study["axes"].items()))
    conditions = where or [f"{field}={','.join(map(str, values))}"]
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(json.dumps({**study, "store": f"{folder}/store"}))
        options = [option for condition in conditions for option in ("--where", condition)]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CHILD, "plan", str(file), "--list", *options],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    cpu, peak = map(float, done.stderr.split())
    listed = done.stdout.partition(f"\n{study['name']}: ")[0].count("\n")
    return PlanBench(listed, seconds, cpu, peak)
