"""`lth report`, `lth verify`, `lth sync`: the results of a swept study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lth_core.errors import SpecError
from sweeps.cli.console import (
    AsJson,
    Overrides,
    PlainConsole,
    Quiet,
    StudyArgument,
    out,
    print_failure,
    print_json,
    write_file,
)
from sweeps.cli.lazy import lazy_imports
from sweeps.phases import phase

with lazy_imports():
    from sweeps.report import export as exports
    from sweeps.report import reference as references
    from sweeps.report import study_report, study_results
    from sweeps.report import sync as syncs
    from sweeps.store import swept
    from sweeps.studies import find

report_app = typer.Typer()


@report_app.command()
def report(
    study: StudyArgument,
    overrides: Overrides = None,
    as_json: AsJson = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the records to a CSV file instead.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write them to a Parquet file instead.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The HTML file; figures go beside it.")
    ] = None,
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print every level of every cell.")
    ] = False,
) -> None:
    """Show the verdict and write the HTML report.

    With --json, print a record for every trial, branch and level instead.
    """
    notes = PlainConsole(quiet=True) if quiet else out
    if output and output.is_dir():
        raise SpecError("--output", "must name the HTML file, not a folder", str(output))
    plan = swept.swept_plan(find.find_study(study, overrides or [], swept=True))
    files = {"csv": csv, "parquet": parquet}
    if as_json or csv or parquet:
        results = study_results.study_results(plan)
        if results.incomplete:
            runs = f"`{plan.study.command()}` runs what is missing."
            PlainConsole(stderr=True).print(f"{results.incomplete} {runs}")
        for kind, path in files.items():
            if path:
                content = exports.WRITERS[kind](results.records)
                write_file(path, content, f"--{kind}")
                if not as_json:
                    notes.print(f"{path}: {len(results.records):,} records")
        if as_json:
            print_json(results.records)
        return
    with phase(notes, "writing the report", logged=False):
        written = study_report.finish(plan, out, output, every_level=verbose)
    for note in written.notes:
        notes.print(note)
    for line in written.unpublished:
        print_failure(out, line)
    notes.print(f"report: {written.path}")


@report_app.command()
def verify(
    study: StudyArgument,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print the conclusion alone.")
    ] = False,
) -> None:
    """Compare a finished study with published figures.

    The figures are in the study's file. Exits with 1 if any of them disagrees; with 0 if there are
    none. A sweep of other settings than the file's is compared, too, and named.
    """
    # The figures may have been added to the file after the sweep.
    published = find.find_study(study, overrides or [])
    chosen = find.find_study(study, overrides or [], swept=True)
    reference = published.reference or chosen.reference
    if reference is None:
        have = ", ".join(find.presets_with_reference())
        screen = PlainConsole(stderr=True) if as_json else out
        screen.print(f"{chosen.name}: nothing published to compare; studies with figures: {have}")
        return
    plan = swept.swept_plan(chosen)
    records = study_results.study_results(plan).records
    checks = references.verify(records, plan.axes, reference)
    swept_as = references.other_settings(published, chosen)
    if as_json:
        print_json(check.to_json() | {"swept_as": swept_as} for check in checks)
    else:
        notes = PlainConsole(quiet=True) if quiet else out
        notes.print(f"{reference.source}; {reference.within:g} points still agree")
        notes.print(references.check_table(checks))
        out.print(references.conclusion(checks, swept_as))
    if any(check.outcome != "agrees" for check in checks):
        raise typer.Exit(1)


@report_app.command()
def sync(study: StudyArgument, quiet: Quiet = False) -> None:
    """Publish the results of a study that MLflow lacks.

    Exits with 1 if the store has lost some of them, their code or data have changed, or MLflow
    refuses them.
    """
    plan = swept.swept_plan(find.find_study(study, [], swept=True))
    published = syncs.sync(plan)
    notes = PlainConsole(quiet=True) if quiet else out
    trials = "1 trial is" if published.trials == 1 else f"{published.trials} trials are"
    notes.print(f"{plan.study.name}: {trials} in MLflow")
    for line in published.failure_lines():
        print_failure(out, line)
    if published.failures:
        raise typer.Exit(1)
