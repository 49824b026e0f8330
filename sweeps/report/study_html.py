"""HTML report of a study, with its provenance."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from lth_core.columns import Record
from lth_core.spec.fields import Checks
from lth_core.store import existing_store
from sweeps.plan.plan import Plan, summary
from sweeps.report.study_results import StudyResults
from sweeps.store.records import load_curves
from tracking.publish.provenance import versions
from tracking.report.html import write_report

ALWAYS = {
    "data": ["name"],
    "model": ["name"],
    "train": ["optimizer", "lr", "batch_size", "steps"],
    "prune": ["when", "score", "fraction"],
}
"""Fields of a spec's parts that a report gives with their defaults too."""


def write_html(plan: Plan, results: StudyResults, file: Path) -> Path:
    """Write a study's report to a file, its figures beside it; returns the file."""
    study, store = plan.study, existing_store(plan.study.store)
    return write_report(
        file,
        study.name,
        results.records,
        results.axes,
        lambda digest: load_curves(store, digest),
        study.verdict.rule(),
        _provenance(plan, results),
        study.stable_below,
        results.incomplete,
    )


def trainings_text(records: Sequence[Record]) -> str:
    """Number of records whose training the last sweep ran, of all, and the number from the store.

    >>> trainings_text([{"reused": False}, {"reused": True}, {"reused": True}])
    '1 of 3, 2 from the store'
    """
    reused = sum(record["reused"] for record in records)
    return f"{len(records) - reused} of {len(records)}, {reused} from the store"


def settings_text(spec: Checks, always: Sequence[str] = ()) -> str:
    """Fields of a spec that decide the result and differ from their defaults, as `name value`.

    >>> from lth_core.spec import DataSpec
    >>> settings_text(DataSpec(validation=0, root="elsewhere"), always=["name"])
    'name digits, validation 0'

    Args:
        always: names of fields that are given with their defaults too.
    """
    given = []
    for field in fields(spec):  # type: ignore[arg-type]
        value, make = getattr(spec, field.name), field.default_factory
        default = field.default if make is MISSING else make()
        decides = field.metadata.get("decides", True) and not isinstance(value, Checks)
        if decides and (value != default or field.name in always):
            given.append(f"{field.name} {_value_text(value)}")
    return ", ".join(given)


def _value_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _provenance(plan: Plan, results: StudyResults) -> dict[str, str]:
    """Provenance of the results, by name: command, settings, counts and versions."""
    study, records = plan.study, results.records
    trials = len({record["trial"] for record in records})
    return {
        "study": study.name,
        "command": " ".join(["lth", *sys.argv[1:]]),
        **{part: settings_text(getattr(study.base, part), names) for part, names in ALWAYS.items()},
        "search": settings_text(study.base, ["levels", "rewind"]),
        "trials": str(trials) if trials == results.trials else f"{trials} of {results.trials}",
        "seeds": ", ".join(map(str, sorted({record["seed"] for record in records}))),
        "trainings planned": str(summary(plan)["trainings_unique"]),
        "trainings run in the last sweep": trainings_text(records),
        **{f"version: {name}": version for name, version in versions().items()},
    }
