"""Verdicts: statistics over replicates, pure functions from records to values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from lth_core.analysis.groups import group_by, values_of
from lth_core.columns import Record

FEWEST = 3
"""Fewest replicates for a verdict."""
LEAST_TOLERANCE = 0.001
"""0.1 points of accuracy: smaller differences are ignored."""
SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean over n replicates; for two or more, deviation and 95% interval (Student's t)."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


def summarize(values: Sequence[float]) -> Summary:
    """The summary of at least one value.

    >>> summarize([0.96, 0.98])
    Summary(n=2, mean=0.97, std=0.014142135623730963, low=0.8429379526...)
    """
    mean, n = fmean(values), len(values)
    if n < 2:
        return Summary(n, mean, None, None, None)
    std = stdev(values)
    half = _t_975(n - 1) * std / sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


@cache  # a report needs few distinct values, thousands of times
def _t_975(freedom: int) -> float:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, 0.975))


def p_greater(a: Sequence[float], b: Sequence[float]) -> float:
    """p of the paired one-sided t-test that a is greater than b on average.

    Where all differences are equal the t-test has no variance, and any gain would be significant.
    The sign test is used instead: the probability of n gains by chance is 2^-n.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    if max(differences) - min(differences) < 1e-12:
        return 0.5 ** len(differences) if differences[0] > 1e-12 else 1.0
    from scipy.special import stdtr

    n = len(differences)
    t = fmean(differences) / (stdev(differences) / sqrt(n))
    return float(stdtr(n - 1, -t))


def slack(dense: Summary, tolerance: float | None) -> float:
    """Accuracy below dense that still matches: the given tolerance, or one deviation of the dense
    runs, at least 0.1 points."""
    return max(dense.std or 0.0, LEAST_TOLERANCE) if tolerance is None else tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on the ticket of one cell at one level, over the replicates."""

    cell: dict[str, Any]
    """Axis values without the seed."""
    level: int
    density: float
    accuracy: dict[str, Summary]
    """Final test accuracy by branch, `dense` among them, over seeds with both dense and ticket."""
    early_stop: dict[str, Summary]
    """Early-stop step by branch."""
    tolerance: float
    """Accuracy below dense that still matches."""
    p_reinit: float | None
    """p of the ticket beating reinit, paired by seed; None without that branch."""
    matching: bool
    faster: bool
    verdict: str
    """`winning`, `matching`, `not matching`, or `too few replicates`."""


def verdicts(
    records: Iterable[Record], axes: Sequence[str], tolerance: float | None = None
) -> list[Verdict]:
    """A verdict for every cell and level above 0, in the records' order.

    Args:
        records: as `LevelResult.records`, with every axis by its dotted name.
        axes: dotted names of the study's axes; those but `seed` make a cell.
        tolerance: accuracy below dense that still matches; None: one dense standard deviation,
            at least 0.1 points.
    """
    names = [axis for axis in axes if axis != "seed"]
    return [
        verdict
        for rows in group_by(records, values_of(names)).values()
        for verdict in _cell_verdicts({n: rows[0].get(n) for n in names}, rows, tolerance)
    ]


WORDS = ("winning", "matching", "not matching", "too few replicates")
"""Words of a verdict, the best first."""


def best_word(verdicts: Iterable[Verdict]) -> str:
    """Word of the best verdict; `none` where there are no verdicts."""
    words = {verdict.verdict for verdict in verdicts}
    return next((word for word in WORDS if word in words), "none")


def sparsest(
    verdicts: Iterable[Verdict], words: Sequence[str] = ("matching", "winning")
) -> Verdict | None:
    """The verdict of lowest density among those with one of the words."""
    return min((v for v in verdicts if v.verdict in words), key=lambda v: v.density, default=None)


def _cell_verdicts(
    cell: dict[str, Any], rows: list[Record], tolerance: float | None
) -> Iterable[Verdict]:
    by_level: dict[int, dict[str, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by_level[row["level"]][row["branch"]][row["seed"]] = row
    dense = by_level.pop(0, {}).get("dense", {})
    for level, branches in sorted(by_level.items()):
        seeds = [seed for seed in dense if seed in branches.get("ticket", {})]
        if seeds:
            yield _verdict(cell, level, {"dense": dense, **branches}, seeds, tolerance)


def _verdict(
    cell: dict[str, Any],
    level: int,
    branches: Mapping[str, Mapping[int, Record]],
    seeds: list[int],
    tolerance: float | None,
) -> Verdict:
    def values(branch: str, key: str, over: Iterable[int] = seeds) -> list[float]:
        return [branches[branch][s][key] for s in over if s in branches[branch]]

    def summaries(key: str) -> dict[str, Summary]:
        return {b: summarize(v) for b in branches if (v := values(b, key))}

    accuracy, early_stop = summaries("final_test_accuracy"), summaries("early_stop_step")
    dense, ticket = accuracy["dense"], accuracy["ticket"]
    allowed = slack(dense, tolerance)
    no_more_steps = max(values("ticket", "steps")) <= min(values("dense", "steps"))
    matching = no_more_steps and ticket.mean >= dense.mean - allowed
    pairs = [s for s in seeds if s in branches.get("reinit", {})]
    p = None
    if len(pairs) > 1:
        p = p_greater(*(values(b, "final_test_accuracy", pairs) for b in ("ticket", "reinit")))
    if len(seeds) < FEWEST:
        word = "too few replicates"
    elif not matching:
        word = "not matching"
    else:
        word = "winning" if p is not None and p < SIGNIFICANT else "matching"
    return Verdict(
        cell=cell, level=level, density=fmean(values("ticket", "density")), accuracy=accuracy,
        early_stop=early_stop, tolerance=allowed, p_reinit=p, matching=matching,
        faster=early_stop["ticket"].mean < early_stop["dense"].mean, verdict=word,
    )  # fmt: skip
