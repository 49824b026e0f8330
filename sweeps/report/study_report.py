"""Report of a study: verdicts printed, HTML written, and both published to MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lth_core.errors import StoreError, TrackingError
from sweeps.plan.plan import Plan
from sweeps.report.provenance import changed_rules
from sweeps.report.study_html import write_html
from sweeps.report.study_results import answer_of, objective_of, study_results
from sweeps.report.sync import open_study_publisher, publish_results
from tracking.report.search_table import best_lines, caveat
from tracking.report.terminal import verdict_table

PUBLISH_LIMIT = 120.0
"""Seconds after which a report stops publishing; `lth sync` has no limit."""


@dataclass(frozen=True)
class WrittenReport:
    """The report's file, and notes for the user."""

    path: Path
    notes: list[str]
    best: list[str]
    """Lines on the best settings of an adaptive search."""
    unpublished: list[str]
    """Lines on the trials that could not be published."""


def finish(
    plan: Plan, console: Console, output: Path | None = None, *, every_level: bool = False
) -> WrittenReport:
    """Print the verdicts, write the report, and publish it to the study's run in MLflow.

    Args:
        every_level: print all levels of cells that have many.
    """
    study, results = plan.study, study_results(plan)
    if results.incomplete:
        text = f"{results.incomplete} `{study.command()}` runs what is missing."
        console.print(Text(text, style="yellow"), soft_wrap=True)
    console.print(Text(answer_of(study, results).sentence, style="bold"))
    best = [f"best: {line}" for line in best_lines(results.best)]
    for line in best:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if warning := caveat(objective_of(study)):
        console.print(Text(f"{warning[0].upper()}{warning[1:]}.", style="yellow"))
    if changed := changed_rules(study):
        console.print(Text(f"The rule of verdicts was changed: {changed}.", style="yellow"))
    table = verdict_table(
        results.records, results.axes, study.verdict.rule(), study.stable_below,
        every_level=every_level,
    )  # fmt: skip
    console.print(table)
    path = write_html(plan, results, output or study.folder() / "report.html")
    notes, unpublished = list[str](), list[str]()
    if study.tracking.uri and output is None:
        try:
            publisher = open_study_publisher(plan)
            published = publish_results(plan, publisher, results, lambda: path, PUBLISH_LIMIT)
            unpublished = published.failure_lines()
        except (TrackingError, StoreError) as error:
            notes.append(f"{error}; `lth sync {study.name}` publishes what is missing")
    return WrittenReport(path, notes, best, unpublished)
