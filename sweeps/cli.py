"""The command line, `lth`. Exit codes: 0 done, 1 trials failed or figures differ, 2 bad input."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lth_core.errors import LthError, SpecError
from sweeps.console import AsJson, out, print_json, write_text
from sweeps.ticket_commands import ticket_app

if TYPE_CHECKING:
    from sweeps.plan import Plan

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find lottery tickets: sweeps on Ray Tune, tickets in MLflow.",
)
app.add_typer(ticket_app, name="ticket")

Address = Annotated[
    str | None, typer.Option(help="A Ray cluster's address; by default this machine.")
]
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or a name.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Changes to the study.")
]


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    sys.path.insert(0, os.getcwd())  # so that package.module:factory finds the user's modules
    logging.basicConfig(level=logging.WARNING, format="lth: %(message)s")
    try:
        app()
    except LthError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"lth: {error}")
        sys.exit(2)


@app.command()
def sweep(
    study: StudyArgument,
    overrides: Overrides = None,
    address: Address = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch absent datasets.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Plan, launch or resume, track, report."""
    from sweeps.launch import launch
    from sweeps.plan import make_plan
    from sweeps.report import finish
    from sweeps.studies import find_study

    changes = [*(overrides or []), *(["data.download=true"] if download else [])]
    chosen = find_study(study, changes)
    out.print(plan_text(make_plan(chosen)), soft_wrap=True)
    if dry_run:
        return
    outcome = launch(chosen, out, address)
    for note in outcome.notes:
        out.print(note, soft_wrap=True, markup=False)
    for name, reason in outcome.failures:
        out.print(f"[red]failed[/] {escape(f'{name}: {reason}')}", soft_wrap=True)
    try:
        report = finish(chosen, out)
    except SpecError:  # nothing is done
        if not outcome.failures:
            raise
        raise typer.Exit(1) from None
    for note in report.notes:
        out.print(note, soft_wrap=True, markup=False)
    out.print(f"report: {report.path}", soft_wrap=True, markup=False)
    if chosen.tracking.uri:
        lth = "lth" if shutil.which("lth") else sys.argv[0]
        out.print(f"every ticket, mask and curve, in MLflow's UI: {lth} ui {chosen.name}",
                  soft_wrap=True, markup=False)  # fmt: skip
    if outcome.failures:
        raise typer.Exit(1)


@app.command()
def plan(study: StudyArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Say what a study will train, and what sharing saves."""
    from sweeps.plan import make_plan, summary
    from sweeps.studies import find_study

    chosen = find_study(study, overrides or [])
    planned = make_plan(chosen)
    if as_json:
        sharing = {name: {"made": m, "used": u} for name, (m, u) in planned.sharing().items()}
        print_json([{**summary(planned), "sharing": sharing}])
    else:
        out.print(plan_text(planned), soft_wrap=True)


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
    from sweeps.report import finish, study_records
    from sweeps.studies import find_study

    chosen = find_study(study, overrides or [], swept=True)
    if as_json:
        print_json(study_records(chosen)[0])
        return
    written = finish(chosen, out, output)
    for note in written.notes:
        out.print(note, soft_wrap=True, markup=False)
    out.print(f"report: {written.path}", soft_wrap=True, markup=False)


@app.command()
def rewind(
    study: StudyArgument,
    overrides: Overrides = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Find the earliest rewind point whose tickets match, of every cell and density, by bisection
    on the evaluation grid."""
    from sweeps.answers import answer_table
    from sweeps.rewind import find_rewinds
    from sweeps.studies import find_study

    screen = Console(stderr=True, highlight=False) if as_json else out
    answers, outcome = find_rewinds(find_study(study, overrides or []), screen, address)
    for note in outcome.notes:
        screen.print(note, soft_wrap=True, markup=False)
    for name, reason in outcome.failures:
        screen.print(f"[red]failed[/] {escape(f'{name}: {reason}')}", soft_wrap=True)
    if as_json:
        print_json(answer.to_json() for answer in answers)
    else:
        out.print(answer_table(answers))
    if outcome.failures:
        raise typer.Exit(1)


@app.command()
def verify(study: StudyArgument, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Hold a finished study against the published figures in its file; 1 where any disagrees."""
    from sweeps.plan import make_plan
    from sweeps.report import study_records
    from sweeps.studies import find_study, presets_with_reference
    from sweeps.verify import check_table, disagreement, verify

    # The file's own as it is now: it may have come after the sweep.
    reference = find_study(study, overrides or []).reference
    chosen = find_study(study, overrides or [], swept=True)
    reference = reference or chosen.reference
    if reference is None:
        rule = "must be given in the study's file for anything to be verified"
        raise SpecError("reference", rule, None, presets_with_reference())
    checks = verify(study_records(chosen)[0], make_plan(chosen).axes, reference)
    if as_json:
        print_json(check.to_json() for check in checks)
    else:
        out.print(f"{reference.source}; {reference.within:g} points still agree", markup=False)
        out.print(check_table(checks))
        out.print(disagreement(checks) or "All agree.", soft_wrap=True, markup=False)
    if any(check.outcome != "agrees" for check in checks):
        raise typer.Exit(1)


@app.command()
def sync(study: StudyArgument) -> None:
    """Publish to MLflow what it has not got."""
    from sweeps.report import publish_missing
    from sweeps.studies import find_study

    chosen = find_study(study, [], swept=True)
    out.print(f"{chosen.name}: {publish_missing(chosen)} trials are in MLflow")


@app.command()
def studies() -> None:
    """List the preset studies."""
    from sweeps.studies import presets

    table = Table("study", "what it asks", box=None)
    for path in sorted(presets().values()):
        about = path.read_text().splitlines()[0].lstrip("# ")
        table.add_row(path.stem, about)
    out.print(table)


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="datasets, models, when, scores, scopes, structures, schedules, branches or "
            "fields; all if none."
        ),
    ] = None,
) -> None:
    """List what a study file can name."""
    from sweeps.catalogue import catalogue

    kinds = catalogue()
    if kind is not None and kind not in kinds:
        raise SpecError("kind", "is not known", kind, kinds)
    for name, entries in kinds.items():
        if kind in (None, name):
            table = Table(name, "", box=None)
            for entry, about in entries.items():
                table.add_row(entry, about)
            out.print(table)


@app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write.")
    ] = None,
) -> None:
    """Write the JSON Schema of study files, so that editors complete and check them."""
    from sweeps.config import study_schema

    text = json.dumps(study_schema(), indent=2)
    if output is None:
        sys.stdout.write(text + "\n")
    else:
        write_text(output, text + "\n")


@app.command()
def ui(
    study: Annotated[
        str | None, typer.Argument(help="The study whose tracking store to show.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Open MLflow's UI, on this machine only (127.0.0.1)."""
    from sweeps.config import Tracking
    from sweeps.studies import find_study
    from tracking.server import serve_ui

    tracking = find_study(study, [], swept=True).tracking if study else Tracking()
    serve_ui(tracking.uri, port)


def plan_text(plan: Plan) -> str:
    """The plan in a sentence, and what of it is made once for several."""
    from sweeps.plan import summary

    cost = summary(plan)
    saved = 1 - cost["steps_unique"] / max(1, cost["steps_naive"])
    text = (
        f"[bold]{plan.study.name}[/]: {cost['trials']} trials, {cost['trainings_unique']} "
        f"trainings ({cost['trainings_naive']} without sharing), {cost['steps_unique']:,} "
        f"steps ({saved:.1%} saved)"
    )
    shared = [f"{name} {made} for {used}" for name, (made, used) in plan.sharing().items()
              if made < used]  # fmt: skip
    return f"{text}\nshared: {', '.join(shared)}" if shared else text


if __name__ == "__main__":
    main()
