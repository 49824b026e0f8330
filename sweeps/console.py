"""What the commands print with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lth_core.errors import SpecError

AsJson = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or a name.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Changes to the study.")
]
out = Console(highlight=False)


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
