"""Trials of a study that lack records, as pure functions of the planned trials and the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lth_core.analysis.groups import group_by, key_of, values_of
from sweeps.plan.plan import Trial
from sweeps.plan.stopping import has_stopped
from sweeps.studies.schema import Stop

MOST_NAMED = 5
"""Number of incomplete trials that a message names; it counts the others."""


@dataclass(frozen=True, slots=True)
class MissingWork:
    """A trial with fewer levels than planned."""

    trial: str
    """The trial's id."""
    levels: int
    """Number of levels that have records, the dense run included; 0: the trial has no records."""
    planned: int
    """Number of levels of the trial's spec, the dense run included."""

    def __str__(self) -> str:
        recorded = f"{self.levels} of {self.planned} levels" if self.levels else "no records"
        return f"{self.trial} has {recorded}"


def missing_work(
    trials: Sequence[Trial],
    records: Sequence[Mapping[str, Any]],
    stop: Stop,
    margin: float,
) -> list[MissingWork]:
    """Trials with fewer levels than planned that the stop rule did not end, in the order given.

    Args:
        trials: the planned trials, each once.
        records: records of any number of trials and studies; matched by `spec_digest`.
        stop, margin: the study's stop rule and margin.
    """
    records_of: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        records_of[record["spec_digest"]].append(record)
    missing = []
    for trial in trials:
        rows = records_of[trial.digest]
        levels, planned = len({row["level"] for row in rows}), trial.spec.levels + 1
        if levels < planned and not has_stopped(rows, stop, margin):
            missing.append(MissingWork(trial.id, levels, planned))
    return missing


def planned_replicates(
    plan: Sequence[Trial], trials: Sequence[Trial], sampled: Collection[str] = ()
) -> dict[str, int]:
    """Number of seeds planned for the cell of each trial, by the trial's digest.

    Args:
        plan: trials of the study's plan.
        trials: trials to count the seeds of, with all fields of the plan's trials.
        sampled: fields of an adaptive search's space, whose values the plan does not know.
    """
    cell = values_of([name for name in plan[0].fields if name not in ("seed", *sampled)])
    by_cell = group_by(plan, lambda trial: cell(trial.fields))
    seeds = {key: len({trial.spec.seed for trial in group}) for key, group in by_cell.items()}
    return {trial.digest: seeds.get(key_of(cell(trial.fields)), 0) for trial in trials}


def with_replicates(
    records: Sequence[Mapping[str, Any]], axes: Sequence[str], planned: Mapping[str, int]
) -> list[dict[str, Any]]:
    """The records with two more columns, `replicates` and `replicates_planned`.

    `replicates` is the number of seeds that have a record of the same cell, level and branch.

    Args:
        axes: dotted names of the study's axes; all but `seed` make a cell.
        planned: the result of `planned_replicates`.
    """
    place = values_of(["level", "branch", *(name for name in axes if name != "seed")])
    seeds = {key: len({row["seed"] for row in rows})
             for key, rows in group_by(records, place).items()}  # fmt: skip
    counted = []
    for record in records:
        replicates = seeds[key_of(place(record))]
        # A search whose space includes the seed has more seeds than the plan.
        expected = max(replicates, planned.get(record["spec_digest"], replicates))
        counted.append({**record, "replicates": replicates, "replicates_planned": expected})
    return counted


def incomplete_text(missing: Sequence[MissingWork], trials: int) -> str:
    """Sentence, without its full stop, that names incomplete trials; empty where there are none.

    Args:
        trials: number of planned trials.
    """
    if not missing:
        return ""
    named = [str(each) for each in missing[:MOST_NAMED]]
    more = len(missing) - len(named)
    named += [f"{more} more"] * (more > 0)
    verb = "is" if len(missing) == 1 else "are"
    return f"{len(missing)} of {trials} trials {verb} incomplete: {'; '.join(named)}"
