"""Benchmarks: figures of one run, their limits, and the ratios of both.

They are no part of the tests: machines are shared, so only ratios can be compared.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeps.bench.plan import MIB, SECONDS, bench_plan
from sweeps.bench.report import MIB as REPORT_MIB
from sweeps.bench.report import SECONDS as REPORT_SECONDS
from sweeps.bench.report import bench_report
from sweeps.bench.start import COMMANDS, bench_start
from sweeps.bench.sweep import (
    CPU_SECONDS,
    FILES,
    SHORT_KIB,
    bench_short,
    growth,
    lth,
    sweep_watched,
)

Row = dict[str, Any]

TRIALS, KIB = 300, 100
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
    """A measured figure and its limit."""

    benchmark: str
    figure: str
    measured: float
    at_most: float

    @property
    def ratio(self) -> float:
        """Measured figure divided by its limit; within it below 1."""
        return self.measured / self.at_most

    def to_json(self) -> Row:
        return {**asdict(self), "ratio": self.ratio}

    def __str__(self) -> str:
        of = f"{self.measured:.3g} of {self.at_most:g}"
        return f"{self.benchmark:6} {of:18} ratio {self.ratio:.2f}  {self.figure}"


def plan() -> Iterator[Measured]:
    """Cost of listing, filtering and estimating 100,000 trials in another process."""
    took = bench_plan()
    yield Measured("plan", f"seconds for {took.trials:,} trials", took.seconds, SECONDS)
    yield Measured("plan", "MiB at most", took.peak_mib, MIB)


def report() -> Iterator[Measured]:
    """Cost of the report of 5,000 records, with curves and masks, in another process."""
    took = bench_report()
    yield Measured("report", f"seconds for {took.records:,} records", took.seconds, REPORT_SECONDS)
    yield Measured("report", "MiB at most", took.peak_mib, REPORT_MIB)


def start() -> Iterator[Measured]:
    """Start-up times of commands that import no torch, a plan and a report, in `import torch`s."""
    took = bench_start()
    for name, ratio in took.ratios().items():
        figure = f"times of import torch ({took.torch:.2f} s): lth {name}"
        yield Measured("start", figure, ratio, COMMANDS[name][1])


def sweep(trials: int = TRIALS) -> Iterator[Measured]:
    """Cost of a sweep of 300 trials of five short trainings each, tracked and reported.

    The figures are the time outside training, and the driver's growth with each finished trial. A
    second sweep has 2,000 trials of one step each.

    Raises:
        LaunchError: the sweep fails.
    """
    cpus = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        begun = time.perf_counter()
        seen = sweep_watched(folder, {**SWEEP, "axes": {"seed": list(range(trials))}})
        wall = time.perf_counter() - begun
        with lth(folder, "report", "bench", "--json"):
            pass
        rows = [json.loads(line) for line in (Path(folder) / "out").read_text().splitlines()]
    each = {row["training_digest"]: row["train_seconds"] for row in rows}
    trained = sum(each.values())
    outside = 1 - trained / (wall * cpus)
    yield Measured("sweep", f"share of {wall:.0f} s on {cpus} CPUs outside training", outside, 0.1)
    lost = (wall * cpus - trained) / trials
    per_trial = trained / trials
    yield Measured("sweep", f"seconds outside training, a trial of {per_trial:.2f} s", lost, 0.3)
    if (kept := growth(seen, trials)) is not None:
        yield Measured(
            "sweep", "KiB more of the driver's memory with each finished trial", kept, KIB
        )
    short = bench_short()
    which = f"with each of {short.trials:,} trials of one step"
    yield Measured("sweep", f"CPU seconds {which}", short.cpu_seconds, CPU_SECONDS)
    if short.kib is not None:
        yield Measured("sweep", f"KiB more of the driver's memory {which}", short.kib, SHORT_KIB)
    yield Measured("sweep", f"files in the store {which}", short.files, FILES)


BENCHMARKS: dict[str, Callable[[], Iterator[Measured]]] = {
    "plan": plan,
    "report": report,
    "start": start,
    "sweep": sweep,
}
"""Benchmarks by name."""
