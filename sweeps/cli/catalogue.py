"""`lth studies`, `lth list`, `lth schema`: preset studies, and the names and fields of studies."""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lth_core.columns import record_schema
from lth_core.errors import SpecError
from sweeps.cli.console import out, write_file
from sweeps.cli.lazy import lazy_imports
from sweeps.studies.catalogue import CATALOGUE
from sweeps.studies.names import presets

with lazy_imports():
    from sweeps.studies import schema as schemas

catalogue_app = typer.Typer()


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in CATALOGUE if kind.startswith(incomplete)]


def _complete_preset(incomplete: str) -> list[str]:
    return [name for name in presets() if name.startswith(incomplete)]


@catalogue_app.command()
def studies(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]", help="A preset, to print all that is written of it.",
            autocompletion=_complete_preset,
        ),
    ] = None,
) -> None:  # fmt: skip
    """List the preset studies, each with its question on one line."""
    known = presets()
    if name is not None and name not in known:
        raise SpecError("STUDY", "is not a preset", name, known)
    if name is not None:
        out.print(_about(known[name]))
        return
    width = max(map(len, known))
    for each in sorted(known):
        line = Text(f"{each:{width}}  {_about(known[each])}")
        line.truncate(out.width, overflow="ellipsis")
        out.print(line)


def _about(path: Path) -> str:
    """The comment at the head of a study file, on one line."""
    comments = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return " ".join(line.lstrip("# ") for line in comments)


@catalogue_app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]", help=f"{', '.join(CATALOGUE)}; by default all.",
            autocompletion=_complete_kind,
        ),
    ] = None,
) -> None:  # fmt: skip
    """List the models, scores, fields, ... that a study can name."""
    if kind is not None and kind not in CATALOGUE:
        raise SpecError("kind", "is not known", kind, CATALOGUE)
    for name in CATALOGUE if kind is None else [kind]:
        table = Table(name, "", box=None)
        for entry, description in CATALOGUE[name]().items():
            table.add_row(entry, description)
        out.print(table)


@catalogue_app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write.")
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report", help="Write the schema of a line of `lth report --json` instead."),
    ] = False,
) -> None:
    """Write the JSON Schema of study files, for editors."""
    text = json.dumps(record_schema() if report else schemas.study_schema(), indent=2)
    if output is None:
        sys.stdout.write(text + "\n")
    else:
        write_file(output, f"{text}\n".encode())
