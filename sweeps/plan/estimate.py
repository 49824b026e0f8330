"""Estimate of a plan's time, from the stored speeds of earlier trainings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, prod, sqrt
from typing import Any

import torch

from lth_core.data import part_sizes
from lth_core.errors import StoreError
from lth_core.jobs.recipes import Job
from lth_core.parallel import usable_cpus
from lth_core.spec import TicketSpec
from lth_core.store import Store, open_store
from lth_core.train.timings import SpeedFactors, passes_per_step, seconds_per_step, speed_key
from sweeps.plan.counting import Counts, counts_left
from sweeps.plan.plan import Plan, Trial
from sweeps.plan.probe import probe_speeds, step_range
from sweeps.plan.recorded import read_trial
from sweeps.plan.sizes import network_text
from sweeps.plan.stopping import has_stopped
from sweeps.studies.schema import Resources, Study

MOST_LOOKED_UP = 100_000
"""Largest number of planned trainings with which the store is searched for finished ones."""
PUBLISHING_START = 6.0
"""Seconds by which a worker's first calls of MLflow, whose import takes most of them, delay it: so
that four studies of 20 to 60 s on two cores of an Intel Xeon were estimated within 25%."""
LEVEL_SECONDS = 0.05
"""Seconds of a level without its trainings: records, ticket file, messages; as measured with
`lth sweep rewind --serial`, 96 levels, on an AMD EPYC (Zen 5)."""
MOST_NAMED = 5
"""Largest number of networks without a known speed that the sentence lists."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated time of a plan, or of its trainings that the store lacks."""

    left: bool
    """Whether only trainings that the store lacks are counted."""
    steps: int
    at_most: bool = False
    """Whether a stop rule may leave out some of the steps."""
    seconds: float
    """Seconds of the steps with a known speed, and of the barriers between their twins, ``at_once``
    trials at a time; of the levels besides; and of the start of publishing."""
    at_once: int
    """Number of concurrent trials."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Numbers of steps of networks without a known speed, by network."""
    unknown_seconds: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest plausible seconds of these steps, ``at_once`` trials at a time."""
    measured: bool = False
    """Whether a speed was measured for the estimate, by some steps of training."""
    store_error: str = ""
    """Error of reading the store, or empty."""

    def to_json(self) -> dict[str, Any]:
        """JSON object; ``seconds`` is None where no speed is known."""
        known = not self.steps or sum(self.unknown.values()) < self.steps
        return {"left": self.left, "steps": self.steps, "seconds": self.seconds if known else None,
                "at_once": self.at_once, "unknown": self.unknown,
                "range": [self.seconds + seconds for seconds in self.unknown_seconds],
                "measured": self.measured}  # fmt: skip

    def sentence(self) -> str:
        """Estimate in words: ``time: about 3 h 20 min, 2 at a time``."""
        if self.left and not self.steps:
            return "left: nothing"
        most = "at most " * self.at_most
        start = f"left: {most}{self.steps:,} steps" if self.left else "time"
        if self.store_error:
            return f"time: not known; {self.store_error}"
        if not self.unknown:
            how = "; speed measured just now" if self.measured else ""
            return f"{start}: about {duration(self.seconds)}, {self.at_once} at a time{how}"
        listed = [*list(self.unknown)[:MOST_NAMED], *["..."] * (len(self.unknown) > MOST_NAMED)]
        low, high = (duration(self.seconds + seconds) for seconds in self.unknown_seconds)
        span = f"about {low}" if low == high else f"{low} to {high}"
        untrained = f"never trained here: {', '.join(listed)}"
        return f"{start}: {span}, {self.at_once} at a time; {untrained}"


def estimate(plan: Plan, at_once: int | None = None, *, probe: bool = False) -> Estimate:
    """Estimate of a plan's time, from speeds in the store.

    Args:
        at_once: number of concurrent trials; None: as many as this machine runs.
        probe: train some steps, in memory, of the networks whose speed the store lacks.
    """
    study = plan.study
    counts, left, store_error = plan.counts, False, ""
    try:
        store = open_store(study.store, make=False)
        stored: set[str] = set()
        if study.search.algorithm != "optuna" and plan.counts.trainings <= MOST_LOOKED_UP:
            stored = set(store.digests("trainings"))
        if stored:
            going = (trial.spec for trial in plan.trials if not _is_stopped(store, study, trial))
            left, counts = True, counts_left(going, stored, set(store.digests("points")))
        specs = (trial.spec for trial in plan.trials) if probe else ()
        found = estimate_work(counts, study.resources, store, at_once, specs)
    except StoreError as error:
        store_error = str(error)
        found = estimate_work(counts, study.resources, Store(), at_once)
    publishing = PUBLISHING_START if study.tracking.uri and found.steps else 0.0
    seconds = found.seconds + publishing
    at_most = study.stop.below_matching_for is not None
    return replace(found, left=left, at_most=at_most, seconds=seconds, store_error=store_error)


def _is_stopped(store: Store, study: Study, trial: Trial) -> bool:
    """Whether the study's stop rule has ended a trial, so that its further levels are not left."""
    if study.stop.below_matching_for is None:
        return False
    content = read_trial(store, f"{study.name}.{trial.digest}")
    return bool(content and has_stopped(content["records"], study.stop, study.verdict.margin))


def estimate_work(
    counts: Counts, resources: Resources, store: Store, at_once: int | None = None,
    probed: Iterable[TicketSpec] = (), *, in_turn: int = 1,
) -> Estimate:  # fmt: skip
    """Estimate of the time of some trials, from speeds in the store.

    Args:
        at_once: as in `estimate`.
        probed: specs of which some steps are trained where the store lacks a speed.
        in_turn: number of equal groups of trials that are trained one after the other.

    Raises:
        StoreError: the store cannot be read.
    """
    work = counts.work
    trials = max(1, ceil(counts.unfinished / in_turn))
    at_once = min(at_once or _local_concurrency(resources), trials)
    # The last trials leave cores idle: 5 trials, 2 at a time, take as long as 6.
    share = ceil(trials / at_once) / trials
    device = "cuda" if resources.gpu else "cpu"
    speeds = _speeds(work, store, device)
    missing = {factors: steps for factors, steps in work.items() if speeds[factors] is None}
    measured = probe_speeds(probed, missing, resources, at_once)
    seconds = LEVEL_SECONDS * counts.levels
    low, high, unknown = 0.0, 0.0, Counter[str]()
    for factors, steps in work.items():
        took = steps + barrier_steps(counts.points[factors], factors)
        step_seconds = speeds[factors] or measured.get(speed_key(factors, device))
        if step_seconds is None:
            unknown[network_text(factors.model, factors.data)] += steps
            least, most = step_range(factors, device)
            low, high = low + least * took, high + most * took
        else:
            seconds += step_seconds * took
    return Estimate(
        left=False, steps=work.total(), seconds=seconds * share, at_once=at_once,
        unknown=dict(unknown), unknown_seconds=(low * share, high * share),
        measured=bool(measured),
    )  # fmt: skip


def barrier_steps(points: int, factors: SpeedFactors) -> float:
    """Training steps that take as long as the evaluation of a network at points between two twins,
    on all training and test examples."""
    if not points:
        return 0.0
    sizes = part_sizes(factors.data)
    return points * (sizes.train + sizes.test) / sum(passes_per_step(factors.train, sizes))


class LevelSeconds:
    """Expected seconds of each level of a sweep's trials, one after the other.

    A training counts once, at the first level that has it. The speed of a network that was never
    trained here is a guess from its size, so these seconds tell how the levels' durations compare.

    Args:
        stored: digests of trainings that are not trained again.

    Raises:
        StoreError: the store cannot be read.
    """

    def __init__(self, store: Store, resources: Resources, stored: Iterable[str]) -> None:
        self._store, self._device = store, "cuda" if resources.gpu else "cpu"
        self._counted = set(stored)
        self._step_seconds: dict[SpeedFactors, float] = {}

    def of(self, spec: TicketSpec, planned: Iterable[Mapping[str, Job]]) -> list[float]:
        """Expected seconds of each level of a trial.

        Args:
            planned: the result of `lth_core.lottery.levels`.
        """
        points = {"twin": spec.stability.points}
        return [
            LEVEL_SECONDS
            + sum(self._seconds(job, points.get(branch, 0)) for branch, job in branches.items())
            for branches in planned
        ]

    def _seconds(self, job: Job, points: int) -> float:
        if job.digest in self._counted:
            return 0.0
        self._counted.add(job.digest)
        factors = SpeedFactors(job.data, job.model, job.train, job.finds)
        if factors not in self._step_seconds:
            known = seconds_per_step(self._store, factors, self._device)
            self._step_seconds[factors] = known or sqrt(prod(step_range(factors, self._device)))
        took = job.last - job.first + barrier_steps(points, factors)
        return self._step_seconds[factors] * took


def duration(seconds: float) -> str:
    """Duration in words, in two units at most.

    >>> duration(12_000), duration(0.2), duration(200_000), duration(83), duration(1000)
    ('3 h 20 min', '1 s', '2 d 8 h', '1 min 20 s', '17 min')
    """
    whole = max(1, round(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            count, rest = divmod(round(whole / part) * part, size)
            return f"{count} {unit} {rest // part} {smaller}"
    if whole >= 600:
        return f"{round(whole / 60)} min"
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(round(whole / 10) * 10, 60)
    return f"{minutes} min {rest} s"


def _speeds(
    work: Counter[SpeedFactors], store: Store, device: str
) -> dict[SpeedFactors, float | None]:
    """Seconds a step; None where no training has measured it."""
    by_key: dict[str, float | None] = {}
    for factors in work:
        key = speed_key(factors, device)
        if key not in by_key:
            by_key[key] = seconds_per_step(store, factors, device)
    return {factors: by_key[speed_key(factors, device)] for factors in work}


def _local_concurrency(resources: Resources) -> int:
    """Number of trials that this machine runs side by side; at least one."""
    trials = usable_cpus() / resources.cpu
    if resources.gpu:
        trials = min(trials, torch.cuda.device_count() / resources.gpu)
    return max(1, int(trials))
