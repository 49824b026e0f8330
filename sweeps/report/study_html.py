"""HTML report of a study, with its provenance."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lth_core.columns import Record
from lth_core.store import existing_store
from sweeps.plan.plan import Plan, summary
from sweeps.report.study_results import StudyResults
from sweeps.store.records import load_curves
from tracking.publish.provenance import versions
from tracking.report.html import write_report


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


def _provenance(plan: Plan, results: StudyResults) -> dict[str, str]:
    """Provenance of the results, by name: command, data, training, counts and versions."""
    study, records = plan.study, results.records
    trials = len({record["trial"] for record in records})
    return {
        "study": study.name,
        "command": " ".join(["lth", *sys.argv[1:]]),
        "data": study.base.data.name,
        "model": study.base.model.name,
        "training": f"{study.base.train.optimizer}, lr {study.base.train.lr:g}, batch "
        f"{study.base.train.batch_size}, {study.base.train.steps}",
        "trials": str(trials) if trials == results.trials else f"{trials} of {results.trials}",
        "seeds": ", ".join(map(str, sorted({record["seed"] for record in records}))),
        "trainings planned": str(summary(plan)["trainings_unique"]),
        "trainings run in the last sweep": trainings_text(records),
        **{f"version: {name}": version for name, version in versions().items()},
    }
