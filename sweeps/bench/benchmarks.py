"""Benchmarks: measured figures, their limits, and the ratios of both.

They are not part of the tests: machines are shared, so figures vary from run to run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lth_core.parallel import usable_cpus
from sweeps.bench.compact import LEAST, bench_compact
from sweeps.bench.pack import bench_pack
from sweeps.bench.plan import MIB as PLAN_MIB
from sweeps.bench.plan import SECONDS as PLAN_SECONDS
from sweeps.bench.plan import bench_plan
from sweeps.bench.prune import CHAIN_MIB, EARLY, LATE, bench_chain, bench_prune
from sweeps.bench.report import MIB as REPORT_MIB
from sweeps.bench.report import SECONDS as REPORT_SECONDS
from sweeps.bench.report import bench_report
from sweeps.bench.start import COMMANDS, bench_start
from sweeps.bench.study import LIMIT as STUDY_LIMIT
from sweeps.bench.study import LONGER, OUTSIDE, TRAINING, bench_study
from sweeps.bench.sweep import (
    CPU_SECONDS,
    FILES,
    SHORT_KIB,
    bench_short,
    growth,
    sweep_watched,
    trainings,
)
from sweeps.bench.train import bench_train

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
    """A measured figure and its limit: the most that it may be, or the least, or none."""

    benchmark: str
    figure: str
    measured: float
    at_most: float | None = None
    at_least: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The numbers that the figure was computed from, by name and unit."""

    @property
    def ratio(self) -> float | None:
        """Figure over the most that it may be, or the least over the figure; 1 or less is within.

        >>> Measured("plan", "seconds", 5.0, at_most=10.0).ratio
        0.5
        >>> Measured("train", "times a textbook loop", 5.0, at_least=10.0).ratio
        2.0
        """
        if self.at_least is not None:
            return self.at_least / self.measured
        return None if self.at_most is None else self.measured / self.at_most

    def to_json(self) -> Row:
        """The fields that are given, and the ratio, with the numbers beside them."""
        row = {**asdict(self), "ratio": self.ratio, **self.numbers}
        del row["numbers"]
        return {name: value for name, value in row.items() if value is not None}

    def __str__(self) -> str:
        value = f"{self.measured:.3g}"
        if self.at_least is not None:
            value += f" of {self.at_least:.4g} at least"
        elif self.at_most is not None:
            value += f" of {self.at_most:.4g}"
        ratio = "" if self.ratio is None else f"ratio {self.ratio:.2f}"
        return f"{self.benchmark:7} {value:22} {ratio:11} {self.figure}"


def compact() -> Iterator[Measured]:
    """Time of Conv-6 and VGG-16 without half of their FLOPs, as a share of the full networks'."""
    for each in bench_compact():
        yield Measured("compact", str(each), each.share, 1 / LEAST)


def pack() -> Iterator[Measured]:
    """Training steps a second of packs of networks, as multiples of those of one network."""
    for each in bench_pack():
        numbers = {"steps_per_second": each.steps_per_second}
        yield Measured("pack", str(each), each.gain, numbers=numbers)


def plan() -> Iterator[Measured]:
    """Cost of listing, filtering and estimating 100,000 trials in another process."""
    cost = bench_plan()
    yield Measured("plan", f"seconds for {cost.trials:,} trials", cost.seconds, PLAN_SECONDS)
    yield Measured("plan", "MiB at most", cost.peak_mib, PLAN_MIB)


def prune() -> Iterator[Measured]:
    """Cost of one level's pruning of 25 million weights, and memory of a chain of 20 levels."""
    cost = bench_prune()
    count = f"{cost.weights:,} weights"
    yield Measured(
        "prune", f"CPU seconds for exact global top-k of {count}", cost.top_k_seconds, 1.0
    )
    yield Measured("prune", f"CPU seconds for a global pruning of {count}", cost.prune_seconds, 1.0)
    figure = f"MB of bool masks (a byte a weight) packed and written in a second, {count}"
    yield Measured("prune", figure, cost.mask_mb_per_second, at_least=100.0)
    chain = bench_chain()
    figure = f"MiB of memory more after level {LATE} than after level {EARLY} of a search"
    yield Measured("prune", figure, chain[LATE] - chain[EARLY], CHAIN_MIB)


def report() -> Iterator[Measured]:
    """Cost of the report of 5,000 records, with curves and masks, in another process."""
    cost = bench_report()
    yield Measured("report", f"seconds for {cost.records:,} records", cost.seconds, REPORT_SECONDS)
    yield Measured("report", "MiB at most", cost.peak_mib, REPORT_MIB)


def start() -> Iterator[Measured]:
    """Start-up times of light commands, a plan and a report, as multiples of `import torch`."""
    cost = bench_start()
    for name, ratio in cost.ratios().items():
        figure = f"times of import torch ({cost.torch:.2f} s): lth {name}"
        yield Measured("start", figure, ratio, COMMANDS[name][1])


def study() -> Iterator[Measured]:
    """Time of a study as a sweep, as a multiple of that of a textbook script, and its parts.

    Raises:
        LaunchError: the sweep fails.
    """
    found = bench_study()
    many = f"trainings {LONGER} times as long"
    at_once = f"one training at a time on {usable_cpus()} cores"
    yield Measured(
        "study", f"times a textbook script's speed, {at_once}, {many}",
        found.alone * found.times(LONGER), at_least=STUDY_LIMIT, numbers=found.numbers,
    )  # fmt: skip
    for longer, length in ((LONGER, many), (1, "as run")):
        figure = f"times its speed with a process on each core, {length}: {found.text(longer)}"
        yield Measured("study", figure, found.times(longer))
    yield Measured("study", "times by a process on each core (in wall time)", found.alone)
    for name, factor in found.factors(LONGER).items():
        yield Measured("study", f"times by {name}", factor)
    figure = f"share outside training if each of {found.unique_trainings} takes {TRAINING:g} s"
    yield Measured("study", figure, found.outside_share(TRAINING), OUTSIDE)


def sweep(trials: int = TRIALS) -> Iterator[Measured]:
    """Cost of a sweep of 300 trials of five short trainings each, tracked and reported.

    The figures are the time outside training, and the growth of the driver's memory with each
    finished trial. A second sweep has 2,000 trials of one step each.

    Raises:
        LaunchError: the sweep fails.
    """
    cpus = usable_cpus()
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        started = time.perf_counter()
        observations = sweep_watched(folder, {**SWEEP, "axes": {"seed": list(range(trials))}})
        wall = time.perf_counter() - started
        trained = sum(training.seconds for training in trainings(folder))
    outside = 1 - trained / (wall * cpus)
    yield Measured("sweep", f"share of {wall:.0f} s on {cpus} CPUs outside training", outside, 0.1)
    outside_each = (wall * cpus - trained) / trials
    figure = f"seconds outside training, a trial of {trained / trials:.2f} s"
    yield Measured("sweep", figure, outside_each, 0.3)
    if (kib := growth(observations, trials)) is not None:
        yield Measured(
            "sweep", "KiB more of the driver's memory with each finished trial", kib, KIB
        )
    short = bench_short()
    each = f"with each of {short.trials:,} trials of one step"
    yield Measured("sweep", f"CPU seconds {each}", short.cpu_seconds, CPU_SECONDS)
    if short.kib is not None:
        yield Measured("sweep", f"KiB more of the driver's memory {each}", short.kib, SHORT_KIB)
    yield Measured("sweep", f"files in the store {each}", short.files, FILES)


def train() -> Iterator[Measured]:
    """Training steps a second, as multiples of a textbook loop's, and the floor."""
    for each in bench_train():
        yield Measured(
            "train", str(each), each.times_textbook, at_least=each.at_least, numbers=each.numbers
        )


BENCHMARKS: dict[str, Callable[[], Iterator[Measured]]] = {
    "compact": compact,
    "pack": pack,
    "plan": plan,
    "prune": prune,
    "report": report,
    "start": start,
    "study": study,
    "sweep": sweep,
    "train": train,
}
"""Benchmarks by name."""
