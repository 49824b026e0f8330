"""HTML report of a study, with its provenance."""

from __future__ import annotations

from pathlib import Path

from lth_core.store import existing_store
from sweeps.plan.plan import Plan
from sweeps.report.provenance import provenance
from sweeps.report.study_results import StudyResults, objective_of
from sweeps.store.records import load_curves
from tracking.report.html import Completeness, write_report


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
        provenance(plan, results),
        study.stable_below,
        Completeness(
            planned=results.trials,
            unfinished=results.unfinished,
            missing=results.incomplete,
            objective=objective_of(study),
            best=results.best,
        ),
    )
