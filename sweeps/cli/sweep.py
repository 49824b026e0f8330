"""`lth sweep`, `lth rewind`, `lth status`: run a study and show its progress."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from lth_core.errors import SpecError
from sweeps.cli.console import (
    AsJson,
    Overrides,
    PlainConsole,
    Quiet,
    StudyArgument,
    Verbose,
    out,
    print_failure,
    print_json,
)
from sweeps.cli.lazy import lazy_imports
from sweeps.cli.plan import plan_text
from sweeps.phases import phase

with lazy_imports():
    from lth_core.store import store as stores
    from sweeps.plan import estimate as estimates
    from sweeps.plan import plan as plans
    from sweeps.report import study_report
    from sweeps.run import bisect, earliest_rewind, launch
    from sweeps.run import serial as serial_runs
    from sweeps.store import status as statuses
    from sweeps.studies import find

sweep_app = typer.Typer()

Address = Annotated[
    str | None, typer.Option(help="A Ray cluster's address; by default this machine.")
]
Serial = Annotated[
    bool,
    typer.Option("--serial", help="Train in this process, without Ray, so that debuggers work."),
]


@sweep_app.command()
def sweep(
    study: StudyArgument,
    overrides: Overrides = None,
    address: Address = None,
    serial: Serial = False,
    download: Annotated[bool, typer.Option("--download", help="Fetch absent datasets.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run or resume a study and write its report."""
    notes = PlainConsole(quiet=True) if quiet else out
    changes = [*(overrides or []), *(["data.download=true"] if download else [])]
    with ExitStack() as stack, _stoppable(out):
        plan = _planned(study, changes, address, serial, notes)
        with phase(notes, "estimating the time", not serial, logged=False):
            time = estimates.estimate(plan, 1 if serial else None, probe=True)
        notes.print(plan_text(plan, time))
        if dry_run:
            return
        outcome = launch.launch(plan, notes, address, stack, serial, verbose)
        if outcome.seconds:
            notes.print(_comparison(outcome.seconds, time))
        _report(plan, outcome, notes)


def _planned(
    name: str, overrides: list[str], address: str | None, in_this_process: bool,
    notes: PlainConsole,
) -> plans.Plan:  # fmt: skip
    """The plan of a study that is about to run."""
    with phase(notes, f"planning {name}", not in_this_process, logged=False):
        study = find.find_study(name, overrides)
        options = ["--address", address] if address else ["--serial"] if in_this_process else []
        study = study.called(" ".join([study.arguments, *map(shlex.quote, options)]))
        if in_this_process:
            serial_runs.start_threads(study)
        return plans.make_plan(study)


def _comparison(seconds: float, time: estimates.Estimate) -> str:
    """Duration of the trainings, beside the estimate before them."""
    known = time.steps and not time.unknown
    estimate = f"; the estimate was {estimates.duration(time.seconds)}" if known else ""
    return f"trained for {estimates.duration(seconds)}{estimate}"


@contextmanager
def _stoppable(screen: PlainConsole) -> Iterator[None]:
    """After Ctrl-C or SIGTERM, print the command that resumes, and exit with 130 or 143."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        screen.print(f"stopped; `{shlex.join(['lth', *sys.argv[1:]])}` resumes it")
        raise typer.Exit(getattr(stopped, "code", 130)) from None


def _print_outcome(outcome: launch.SweepOutcome, notes: PlainConsole, screen: PlainConsole) -> None:
    """Print the notes and failures of a sweep."""
    for note in outcome.notes:
        notes.print(note)
    for name, reason in outcome.failures:
        print_failure(screen, f"{name}: {reason}")


def _report(plan: plans.Plan, outcome: launch.SweepOutcome, notes: PlainConsole) -> None:
    """Print a sweep's outcome and write its report.

    Exit with 1 if trials failed, or could not be published.
    """
    _print_outcome(outcome, notes, out)
    try:
        with phase(notes, "writing the report", logged=False):
            report = study_report.finish(plan, out)
    except SpecError:  # no trial has finished
        if not outcome.failures:
            raise
        raise typer.Exit(1) from None
    for note in report.notes:  # on what MLflow lacks
        out.print(note)
    for line in report.unpublished:
        print_failure(out, line)
    if report.unpublished:
        out.print(f"`lth sync {plan.study.name}` publishes what is missing")
    notes.print(f"report: {report.path}")
    if plan.study.tracking.uri and not report.notes:
        lth = "lth" if shutil.which("lth") else sys.argv[0]
        notes.print(f"every ticket, mask and curve, in MLflow's UI: {lth} ui {plan.study.name}")
    if outcome.failures or report.unpublished:
        raise typer.Exit(1)


@sweep_app.command()
def rewind(
    study: StudyArgument,
    overrides: Overrides = None,
    address: Address = None,
    serial: Serial = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find the earliest matching rewind points by bisection.

    Each cell and density has one, on the evaluation grid.
    """
    screen = PlainConsole(stderr=True) if as_json else out
    notes = PlainConsole(quiet=True) if quiet else screen
    with ExitStack() as stack, _stoppable(screen):
        plan = _planned(study, overrides or [], address, serial, notes)
        found, outcome = bisect.find_rewinds(plan, notes, address, stack, serial, verbose)
        _print_outcome(outcome, notes, screen)
        if as_json:
            print_json(rewind.to_json() for rewind in found)
        else:
            out.print(earliest_rewind.rewind_table(found))
        if outcome.failures:
            raise typer.Exit(1)


@sweep_app.command()
def status(study: StudyArgument, as_json: AsJson = False) -> None:
    """Show the progress of a study's sweep and bisection: trials, pace, time left, errors."""
    chosen = find.find_study(study, [], swept=True)
    store = stores.open_store(chosen.store, make=False)
    progress = statuses.load_statuses(store, chosen)
    if as_json:
        print_json(progress)
    else:
        for line in (line for each in progress for line in statuses.lines(each)):
            out.print(line)
