"""Best settings of an adaptive search, and what their numbers are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lth_core.analysis.groups import group_by, values_of
from lth_core.analysis.summary import Summary, summarize
from lth_core.columns import Record
from lth_core.spec.settings import setting_text
from tracking.text import count

MOST_LINES = 10
"""Largest number of settings that a terminal shows."""
CAVEAT = "the best of a search's settings need other seeds to be confirmed"
"""Words on settings that were chosen by results of the same seeds."""


@dataclass(frozen=True, slots=True)
class BestSetting:
    """A sampled setting that no other one surpasses in the objective."""

    fields: Mapping[str, Any]
    """Sampled values, by dotted field."""
    values: Mapping[str, Summary]
    """Summary over the seeds, by the objective's column."""

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return min(value.n for value in self.values.values())

    @property
    def setting(self) -> str:
        """`train.lr=0.01, levels=2`."""
        return ", ".join(f"{name}={setting_text(value)}" for name, value in self.fields.items())

    @property
    def texts(self) -> list[str]:
        """Mean of each column, with half of its 95% interval: `0.935±0.012`."""
        return [_text(value) for value in self.values.values()]


def best_settings(
    records: Sequence[Record], objective: Mapping[str, str], space: Sequence[str]
) -> list[BestSetting]:
    """The best setting; with two columns, those of the Pareto front. Equal settings are one.

    Args:
        records: those of finished samples.
        objective: columns of the last level's ticket, with `max` or `min`.
        space: dotted names of the sampled fields.
    """
    last = dict[str, Record]()
    for record in sorted(records, key=lambda record: record["level"]):
        if record["branch"] in ("dense", "ticket"):
            last[record["spec_digest"]] = record
    settings = [
        BestSetting({name: rows[0][name] for name in space}, _values(rows, objective))
        for rows in group_by(last.values(), values_of(space)).values()
        if all(row.get(name) is not None for row in rows for name in objective)
    ]

    def rank(setting: BestSetting) -> list[float]:
        means = (setting.values[name].mean for name in objective)
        signs = (-1 if goal == "max" else 1 for goal in objective.values())
        return [sign * mean for sign, mean in zip(signs, means, strict=True)]

    front = list[BestSetting]()
    for setting in sorted(settings, key=rank):
        if not front or rank(setting) == rank(front[-1]) or rank(setting)[1:] < rank(front[-1])[1:]:
            front.append(setting)
    return front


def best_lines(best: Sequence[BestSetting]) -> Iterator[str]:
    """A line for each setting: ``density 0.5, steps 40  at  train.lr=0.1 (3 seeds)``."""
    for each in best[:MOST_LINES]:
        named = zip(each.values, each.texts, strict=True)
        text = ", ".join(f"{name} {value}" for name, value in named)
        yield f"{text}  at  {each.setting} ({count(each.seeds, 'seed')})"
    if len(best) > MOST_LINES:
        yield f"{len(best) - MOST_LINES} more in the report"


def caveat(objective: Sequence[str]) -> str:
    """The end of a sentence on the worth of results of settings that a search chose.

    Args:
        objective: the search's columns; without any the text is empty.
    """
    test = [name for name in objective if name.endswith("test_accuracy")]
    chosen = f"; they were chosen by {test[0]}, so test examples do not judge them" if test else ""
    return f"{CAVEAT}{chosen}" if objective else ""


def _values(rows: Sequence[Record], objective: Mapping[str, str]) -> dict[str, Summary]:
    """Summary of each column over seeds; a seed's value is the mean over the other axes."""
    seeds = group_by(rows, lambda row: row["seed"]).values()
    return {name: summarize([fmean(row[name] for row in each) for each in seeds])
            for name in objective}  # fmt: skip


def _text(value: Summary) -> str:
    half = "" if value.high is None else f"±{value.high - value.mean:.2g}"
    return f"{value.mean:.4g}{half}"
