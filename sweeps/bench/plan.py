"""Benchmark of `lth plan`: list, filter and estimate a hundred thousand trials."""

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
"""Study of 100,000 trials on the digits."""
SECONDS, MIB = 10, 1024
"""Limits of time and memory."""

CHILD = """
import re, sys, time
from pathlib import Path
import sweeps.plan.probe
from sweeps.cli.main import main
sweeps.plan.probe.PROBE_SECONDS = 0  # a fixed time, whatever the plan's size
try:
    main()
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    sys.stderr.write(f"{time.process_time()} {int(peak) / 1024}")
"""
"""Program: the command line, which at its end prints its CPU seconds and peak memory in MiB."""


@dataclass(frozen=True)
class PlanBench:
    """Cost of one `lth plan --list` in a process of its own, imports included."""

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
        where: conditions; by default one that names all values of the study's first axis.
    """
    field, values = next(iter(study["axes"].items()))
    conditions = where or [f"{field}={','.join(map(str, values))}"]
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(json.dumps({**study, "store": f"{folder}/store"}))  # JSON is YAML
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
