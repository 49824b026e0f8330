"""What the commands print with."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from lth_core.errors import SpecError

AsJson = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study file, or a name.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Changes to the study.")
]

_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, changes of the writing's direction, and half characters."""


class PlainConsole(Console):
    """A console that prints text as it is: no markup, no emoji, no highlighting, no wrapped lines.

    Names, values and messages are a user's, or come from elsewhere. Styles are for `Text` alone. A
    character that would command the terminal is printed as its escape.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                lines = map(printable, segment.text.split("\n"))
                yield Segment("\n".join(lines), segment.style)


out = PlainConsole()


def printable(text: str) -> str:
    r"""A text of one line, with escapes for what no terminal should be sent.

    >>> print(printable("a\tb [b] \x1b[31m"))
    a\tb [b] \x1b[31m
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def print_failure(console: Console, why: str) -> None:
    """Say what has failed."""
    console.print(Text.assemble(("failed", "red"), f" {why}"))


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
