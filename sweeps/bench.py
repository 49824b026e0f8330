"""Benchmarks, as ratios from one run: what is measured, what it may cost, and how far it is from
that. Never part of the tests: machines are shared, and only ratios say much.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lth_core.errors import LaunchError
from sweeps.bench_plan import MIB, SECONDS, bench_plan

Row = dict[str, Any]

TRIALS = 300
SWEEP: dict[str, Any] = {
    "name": "bench",
    "base": {
        "model": {"name": "mlp", "widths": [300, 100]},
        "train": {"lr": 1.2e-3, "batch_size": 60, "steps": "1200it", "evaluate_every": "100it"},
        "prune": {"fraction": 0.5},
        "levels": 2,
        "branches": ["ticket", "reinit"],
    },
}


@dataclass(frozen=True)
class Measured:
    """A figure beside what it may be at most."""

    benchmark: str
    figure: str
    measured: float
    at_most: float

    @property
    def ratio(self) -> float:
        """Below 1 is within."""
        return self.measured / self.at_most

    def to_json(self) -> Row:
        return {**asdict(self), "ratio": self.ratio}

    def __str__(self) -> str:
        of = f"{self.measured:.3g} of {self.at_most:g}"
        return f"{self.benchmark:6} {of:18} ratio {self.ratio:.2f}  {self.figure}"


def plan() -> Iterator[Measured]:
    """A plan of 100,000 trials is listed, filtered and estimated by a process of its own."""
    took = bench_plan()
    yield Measured("plan", f"seconds for {took.trials:,} trials", took.seconds, SECONDS)
    yield Measured("plan", "MiB at most", took.peak_mib, MIB)


def sweep(trials: int = TRIALS) -> Iterator[Measured]:
    """A sweep of 300 trials of five short trainings each, tracked, reported: time outside training.

    Raises:
        LaunchError: the sweep fails.
    """
    cpus = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        study = {**SWEEP, "axes": {"seed": list(range(trials))}}
        (Path(folder) / "bench.yaml").write_text(yaml.safe_dump(study))
        begun = time.perf_counter()
        _lth(folder, "sweep", "bench.yaml")
        wall = time.perf_counter() - begun
        rows = [json.loads(line) for line in _lth(folder, "report", "bench", "--json").splitlines()]
    each = {row["training_digest"]: row["train_seconds"] for row in rows}
    trained = sum(each.values())
    outside = 1 - trained / (wall * cpus)
    yield Measured("sweep", f"share of {wall:.0f} s on {cpus} CPUs outside training", outside, 0.1)
    lost = (wall * cpus - trained) / trials
    per_trial = trained / trials
    yield Measured("sweep", f"seconds outside training, a trial of {per_trial:.2f} s", lost, 0.3)


def _lth(folder: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "sweeps.cli", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise LaunchError(f"bench: lth {' '.join(arguments)} failed: {ended.stderr.strip()[-500:]}")
    return ended.stdout


BENCHMARKS: dict[str, Callable[[], Iterator[Measured]]] = {
    "plan": plan,
    "sweep": sweep,
}
"""By name."""
