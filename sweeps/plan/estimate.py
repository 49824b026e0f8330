"""Estimate of a plan's time, from the stored speeds of earlier trainings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lth_core.errors import StoreError
from lth_core.parallel import usable_cpus
from lth_core.store import Store, open_store
from lth_core.train.timings import SpeedFactors, seconds_per_step, speed_key
from sweeps.plan.counting import counts_left
from sweeps.plan.plan import Plan, samples_of
from sweeps.plan.sizes import network_text
from sweeps.studies.schema import Resources

MOST_LOOKED_UP = 100_000
"""Largest number of planned trainings with which the store is searched for finished ones."""
MOST_NAMED = 5
"""Largest number of networks without a known speed that the sentence lists."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated time of a plan, or of its trainings that the store lacks."""

    left: bool
    """Whether only trainings that the store lacks are counted."""
    steps: int
    seconds: float
    """Seconds of the steps with a known speed, ``at_once`` trials at a time."""
    at_once: int
    """Number of concurrent trials."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Numbers of steps of networks without a known speed, by network."""
    store_error: str = ""
    """Error of reading the store, or empty."""

    def to_json(self) -> dict[str, Any]:
        """JSON object; ``seconds`` is None where no speed is known."""
        known = not self.steps or sum(self.unknown.values()) < self.steps
        return {"left": self.left, "steps": self.steps, "seconds": self.seconds if known else None,
                "at_once": self.at_once, "unknown": self.unknown}  # fmt: skip

    def sentence(self) -> str:
        """Estimate in words: ``time: about 3 h 20 min, 2 at a time``."""
        if self.left and not self.steps:
            return "left: nothing"
        start = f"left: {self.steps:,} steps" if self.left else "time"
        if self.store_error:
            return f"time: not known; {self.store_error}"
        unknown_steps = sum(self.unknown.values())
        listed = [*list(self.unknown)[:MOST_NAMED], *["..."] * (len(self.unknown) > MOST_NAMED)]
        untrained = f"never trained here: {', '.join(listed)}"
        if unknown_steps == self.steps:
            return f"{start}: not known; {untrained}"
        known = f"{start}: about {duration(self.seconds)}, {self.at_once} at a time"
        return f"{known}, and {unknown_steps:,} steps {untrained}" if unknown_steps else known


def estimate(plan: Plan, at_once: int | None = None) -> Estimate:
    """Estimate of a plan's time, from speeds in the store.

    Args:
        at_once: number of concurrent trials; None: as many as this machine runs.
    """
    study, samples = plan.study, samples_of(plan.study)
    trials, left, store_error = plan.counts.trials * samples, False, ""
    work = plan.counts.work
    try:
        store = open_store(study.store, make=False)
        stored: set[str] = set()
        if study.search.algorithm != "optuna" and plan.counts.trainings <= MOST_LOOKED_UP:
            stored = set(store.digests("trainings"))
        if stored:
            left, work = True, counts_left((trial.spec for trial in plan.trials), stored).work
        work = Counter({factors: steps * samples for factors, steps in work.items()})
        found = estimate_work(work, trials, study.resources, store, at_once)
    except StoreError as error:
        store_error = str(error)
        found = estimate_work(work, trials, study.resources, Store(), at_once)
    return replace(found, left=left, store_error=store_error)


def estimate_work(
    work: Counter[SpeedFactors], trials: int, resources: Resources, store: Store,
    at_once: int | None = None,
) -> Estimate:  # fmt: skip
    """Estimate of the time of some steps, from speeds in the store.

    Args:
        work: numbers of steps, by everything that decides the time of a step.
        trials: number of trials that they belong to.
        at_once: as in `estimate`.

    Raises:
        StoreError: the store cannot be read.
    """
    at_once = max(1, min(at_once or _local_concurrency(resources), trials))
    speeds = _speeds(work, store, "cuda" if resources.gpu else "cpu")
    seconds, unknown = 0.0, Counter[str]()
    for factors, steps in work.items():
        step_seconds = speeds[factors]
        if step_seconds is None:
            unknown[network_text(factors.model, factors.data)] += steps
        else:
            seconds += step_seconds * steps
    return Estimate(left=False, steps=work.total(), seconds=seconds / at_once, at_once=at_once,
                    unknown=dict(unknown))  # fmt: skip


def duration(seconds: float) -> str:
    """Duration in words, in two units at most.

    >>> duration(12_000), duration(0.2), duration(200_000)
    ('3 h 20 min', '1 s', '2 d 8 h')
    """
    whole = max(1, round(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            count, rest = divmod(round(whole / part) * part, size)
            return f"{count} {unit} {rest // part} {smaller}"
    return f"{round(whole / 60)} min" if whole >= 60 else f"{whole} s"


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
