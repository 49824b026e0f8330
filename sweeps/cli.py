"""The command line, `lth`. Exit codes: 0 done, 1 some trials failed, 2 bad input."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lth_core.errors import LthError, SpecError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find lottery tickets: sweeps on Ray Tune, tickets in MLflow.",
)
ticket_app = typer.Typer(no_args_is_help=True, help="Tickets in the store, and ticket files.")
app.add_typer(ticket_app, name="ticket")

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or a name.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Changes to the study.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]
out = Console(highlight=False)


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
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster's address; by default this machine.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch absent datasets.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Plan, launch or resume, track, report."""
    from sweeps.launch import launch
    from sweeps.plan import make_plan, summary
    from sweeps.report import finish
    from sweeps.studies import find_study

    changes = [*(overrides or []), *(["data.download=true"] if download else [])]
    chosen = find_study(study, changes)
    cost = summary(make_plan(chosen))
    out.print(plan_line(chosen.name, cost), soft_wrap=True)
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
    cost = summary(make_plan(chosen))
    if as_json:
        print_json([cost])
    else:
        out.print(plan_line(chosen.name, cost), soft_wrap=True)


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
        typer.Argument(help="datasets, models, scores, branches or fields; all if none."),
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


@ticket_app.command("export")
def ticket_export(
    digest: Annotated[
        str, typer.Argument(help="A ticket_digest of `lth report --json`, or its start.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    store: Annotated[str, typer.Option(help="The result store.")] = "./lth-store",
) -> None:
    """Write a ticket as one safetensors file that `lth_core.load_ticket` reads."""
    from sweeps.tickets import export

    ticket = export(store, digest, output)
    out.print(f"{output}: level {ticket.level} {ticket.branch}, density {ticket.density:.4f}",
              soft_wrap=True, markup=False)  # fmt: skip


@ticket_app.command("ls")
def ticket_ls(
    store: Annotated[str, typer.Option(help="The result store.")] = "./lth-store",
    as_json: AsJson = False,
) -> None:
    """List the tickets in the store."""
    from sweeps.tickets import listing

    found = listing(store)
    if as_json:
        print_json(found)
        return
    table = Table(
        "ticket", "study", "trial", "seed", "branch", "level", "density", "test", box=None
    )
    for row in found:
        table.add_row(
            row["ticket_digest"][:12], row["study"], row["trial"], str(row["seed"]), row["branch"],
            str(row["level"]), f"{row['density']:.4f}", f"{row['final_test_accuracy']:.4f}",
        )  # fmt: skip
    out.print(table)


@ticket_app.command("show")
def ticket_show(file: Annotated[Path, typer.Argument(help="A ticket file.")]) -> None:
    """Check a ticket file whole, and say what it holds."""
    from sweeps.tickets import about

    for name, value in about(file).items():
        out.print(f"{name:14} {value}", soft_wrap=True, markup=False)


def plan_line(name: str, cost: dict[str, int]) -> str:
    """The plan in a sentence."""
    saved = 1 - cost["steps_unique"] / max(1, cost["steps_naive"])
    return (
        f"[bold]{name}[/]: {cost['trials']} trials, {cost['trainings_unique']} trainings "
        f"({cost['trainings_naive']} without sharing), {cost['steps_unique']:,} steps "
        f"({saved:.1%} saved)"
    )


def print_json(rows: Iterable[Any]) -> None:
    """One object a line."""
    for row in rows:
        sys.stdout.write(json.dumps(row, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        SpecError: it cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_text(text)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise SpecError("--output", f"cannot be written ({error.strerror})", str(path)) from None


if __name__ == "__main__":
    main()
