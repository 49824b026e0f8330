"""`lth studies`, `lth list`, `lth schema`: what there is to choose from."""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lth_core.errors import SpecError
from sweeps.cli.console import out, write_text

catalogue_app = typer.Typer()


@catalogue_app.command()
def studies() -> None:
    """List the preset studies."""
    from sweeps.studies.find import presets

    table = Table("study", "what it asks", box=None)
    for path in sorted(presets().values()):
        said = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
        table.add_row(path.stem, " ".join(line.lstrip("# ") for line in said))
    out.print(table)


@catalogue_app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="datasets, models, when, scores, scopes, structures, grow, schedules, branches "
            "or fields; all if none."
        ),
    ] = None,
) -> None:
    """List what a study file can name."""
    from sweeps.studies.catalogue import catalogue

    kinds = catalogue()
    if kind is not None and kind not in kinds:
        raise SpecError("kind", "is not known", kind, kinds)
    for name, entries in kinds.items():
        if kind in (None, name):
            table = Table(name, "", box=None)
            for entry, about in entries.items():
                table.add_row(entry, about)
            out.print(table)


@catalogue_app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write.")
    ] = None,
) -> None:
    """Write the JSON Schema of study files, so that editors complete and check them."""
    from sweeps.studies.schema import study_schema

    text = json.dumps(study_schema(), indent=2)
    if output is None:
        sys.stdout.write(text + "\n")
    else:
        write_text(output, text + "\n")
