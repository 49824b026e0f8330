"""The command line, `lth`. Exit codes: 0 done, 1 trials failed or figures differ, 2 bad
input, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lth_core.errors import LthError, SpecError
from sweeps.cli.catalogue import catalogue_app
from sweeps.cli.console import (
    AsJson,
    Overrides,
    PlainConsole,
    StudyArgument,
    out,
    print_failure,
    print_json,
)
from sweeps.cli.plan import plan_app, plan_text
from sweeps.cli.store import store_app
from sweeps.cli.ticket import ticket_app
from sweeps.cli.ui import ui_app

if TYPE_CHECKING:
    from sweeps.plan.plan import Plan
    from sweeps.run.launch import SweepOutcome

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find lottery tickets: sweeps on Ray Tune, tickets in MLflow.",
)
app.add_typer(ticket_app, name="ticket")
app.add_typer(store_app, name="store")
app.add_typer(plan_app)
app.add_typer(catalogue_app)
app.add_typer(ui_app)

Address = Annotated[
    str | None, typer.Option(help="A Ray cluster's address; by default this machine.")
]
Serial = Annotated[
    bool,
    typer.Option("--serial", help="Run in this process, one trial after another, without Ray."),
]


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    sys.path.insert(0, os.getcwd())  # so that package.module:factory finds the user's modules
    logging.basicConfig(level=logging.WARNING, format="lth: %(message)s")
    try:
        app()
    except LthError as error:
        said = " ".join(str(error).splitlines())  # a name may have a line's end in it
        PlainConsole(stderr=True).print(f"lth: {said}")
        sys.exit(2)


def run() -> None:
    """The command line as a process of its own, which ends with no more of Ray."""
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    if "ray" not in sys.modules or not isinstance(code, int):
        sys.exit(code)  # type: ignore[arg-type]
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of Ray's that outlive it may crash a process that takes its time to end.
    os._exit(code)


@app.command()
def sweep(
    study: StudyArgument,
    overrides: Overrides = None,
    address: Address = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch absent datasets.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    serial: Serial = False,
) -> None:
    """Plan, launch or resume, track, report."""
    from sweeps.plan.plan import make_plan
    from sweeps.run.launch import launch
    from sweeps.studies.find import find_study

    changes = [*(overrides or []), *(["data.download=true"] if download else [])]
    plan = make_plan(find_study(study, changes))
    out.print(plan_text(plan))
    if dry_run:
        return
    with ExitStack() as using, _stoppable(f"lth sweep {study}", out):
        _tell(plan, launch(plan, out, address, using, serial))


@contextmanager
def _stoppable(command: str, screen: PlainConsole) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM say what goes on with it, and end with exit codes of their own."""
    try:
        yield
    except KeyboardInterrupt as told:
        screen.print(f"stopped; `{command}` goes on")
        raise typer.Exit(getattr(told, "code", 130)) from None


def _tell(plan: Plan, outcome: SweepOutcome) -> None:
    """How a sweep ended, and its report."""
    from sweeps.report.study_report import finish

    for note in outcome.notes:
        out.print(note)
    for name, reason in outcome.failures:
        print_failure(out, f"{name}: {reason}")
    try:
        report = finish(plan, out)
    except SpecError:  # nothing is done
        if not outcome.failures:
            raise
        raise typer.Exit(1) from None
    for note in report.notes:
        out.print(note)
    out.print(f"report: {report.path}")
    if plan.study.tracking.uri:
        lth = "lth" if shutil.which("lth") else sys.argv[0]
        out.print(f"every ticket, mask and curve, in MLflow's UI: {lth} ui {plan.study.name}")
    if outcome.failures:
        raise typer.Exit(1)


@app.command()
def report(
    study: StudyArgument,
    overrides: Overrides = None,
    as_json: AsJson = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The HTML file; figures go beside it.")
    ] = None,
) -> None:
    """Show the verdict and write the HTML report, or print a record for every branch and level."""
    from sweeps.plan.plan import make_plan
    from sweeps.report.study_report import finish
    from sweeps.report.study_results import study_results
    from sweeps.studies.find import find_study

    plan = make_plan(find_study(study, overrides or [], swept=True))
    if as_json:
        found = study_results(plan)
        if found.incomplete:
            PlainConsole(stderr=True).print(found.incomplete)
        print_json(found.records)
        return
    written = finish(plan, out, output)
    for note in written.notes:
        out.print(note)
    out.print(f"report: {written.path}")


@app.command()
def rewind(
    study: StudyArgument,
    overrides: Overrides = None,
    address: Address = None,
    serial: Serial = False,
    as_json: AsJson = False,
) -> None:
    """Find the earliest rewind point whose tickets match, of every cell and density, by bisection
    on the evaluation grid."""
    from sweeps.plan.plan import make_plan
    from sweeps.run.bisect import find_rewinds
    from sweeps.run.rewind_answer import answer_table
    from sweeps.studies.find import find_study

    screen = PlainConsole(stderr=True) if as_json else out
    plan = make_plan(find_study(study, overrides or []))
    with ExitStack() as using, _stoppable(f"lth rewind {study}", screen):
        answers, outcome = find_rewinds(plan, screen, address, using, serial)
        for note in outcome.notes:
            screen.print(note)
        for name, reason in outcome.failures:
            print_failure(screen, f"{name}: {reason}")
        if as_json:
            print_json(answer.to_json() for answer in answers)
        else:
            out.print(answer_table(answers))
        if outcome.failures:
            raise typer.Exit(1)


@app.command()
def verify(study: StudyArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Hold a finished study against the published figures in its file; 1 where any disagrees."""
    from sweeps.plan.plan import make_plan
    from sweeps.report.reference import check_table, conclusion, verify
    from sweeps.report.study_results import study_records
    from sweeps.studies.find import find_study, presets_with_reference

    # The file's own as it is now: it may have come after the sweep.
    reference = find_study(study, overrides or []).reference
    chosen = find_study(study, overrides or [], swept=True)
    reference = reference or chosen.reference
    if reference is None:
        rule = "must be given in the study's file for anything to be verified"
        raise SpecError("reference", rule, None, presets_with_reference())
    plan = make_plan(chosen)
    checks = verify(study_records(plan)[0], plan.axes, reference)
    if as_json:
        print_json(check.to_json() for check in checks)
    else:
        out.print(f"{reference.source}; {reference.within:g} points still agree")
        out.print(check_table(checks))
        out.print(conclusion(checks))
    if any(check.outcome != "agrees" for check in checks):
        raise typer.Exit(1)


@app.command()
def status(study: StudyArgument, as_json: AsJson = False) -> None:
    """Say where a sweep stands that runs elsewhere: trials, pace, time left, errors."""
    from lth_core.store import open_store
    from sweeps.store.status import lines, load_status
    from sweeps.studies.find import find_study

    chosen = find_study(study, [], swept=True)
    said = load_status(open_store(chosen.store, make=False), chosen)
    if as_json:
        print_json([said])
    else:
        for line in lines(said):
            out.print(line)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="plan, report, sweep; all if none."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the benchmarks: each figure beside what it may be; a ratio below 1 is within."""
    from sweeps.bench.benchmarks import BENCHMARKS

    for name in names or BENCHMARKS:
        if name not in BENCHMARKS:
            raise SpecError("NAME", "is not known", name, BENCHMARKS)
        for measured in BENCHMARKS[name]():
            if as_json:
                print_json([measured.to_json()])
            else:
                out.print(str(measured))


@app.command()
def sync(study: StudyArgument) -> None:
    """Publish to MLflow what it has not got; 1 where the store has lost some of it."""
    from sweeps.plan.plan import make_plan
    from sweeps.report.sync import sync
    from sweeps.studies.find import find_study

    chosen = find_study(study, [], swept=True)
    published, lost = sync(make_plan(chosen))
    out.print(f"{chosen.name}: {published} trials are in MLflow")
    if lost:
        print_failure(out, lost)
        raise typer.Exit(1)
