"""HTML report of a study, with how it was run."""

from __future__ import annotations

import sys
from pathlib import Path

from lth_core.store import existing_store
from sweeps.plan.plan import Plan, summary
from sweeps.report.study_results import StudyResults
from sweeps.store.records import load_curves
from tracking.publish.provenance import versions
from tracking.report.html import write_report


def write_html(plan: Plan, results: StudyResults, file: Path) -> Path:
    """Write a study's report to a file, its figures beside it; the file."""
    study, store = plan.study, existing_store(plan.study.store)
    return write_report(
        file,
        study.name,
        results.records,
        results.axes,
        lambda digest: load_curves(store, digest),
        study.tolerance,
        _about(plan, results),
        study.stable_below,
        results.incomplete,
    )


def _about(plan: Plan, results: StudyResults) -> dict[str, str]:
    """How the study was run, for its report."""
    study, records = plan.study, results.records
    there = len({record["trial"] for record in records})
    trained = [record for record in records if not record["reused"]]
    return {
        "study": study.name,
        "command": " ".join(["lth", *sys.argv[1:]]),
        "data": study.base.data.name,
        "model": study.base.model.name,
        "training": f"{study.base.train.optimizer}, lr {study.base.train.lr:g}, batch "
        f"{study.base.train.batch_size}, {study.base.train.steps}",
        "trials": str(there) if there == results.trials else f"{there} of {results.trials}",
        "seeds": ", ".join(map(str, sorted({record["seed"] for record in records}))),
        "trainings planned": str(summary(plan)["trainings_unique"]),
        "trainings run in the last sweep": f"{len(trained)}, the rest came from the store",
        **{f"version: {name}": version for name, version in versions().items()},
    }
