"""Console output, and the arguments that commands share."""

from __future__ import annotations

import json
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
from lth_core.store.folder import write_whole
from sweeps.studies.names import study_names


def complete_study(incomplete: str) -> list[str]:
    """Names of studies that begin with a text; the shell itself completes files."""
    return [name for name in study_names() if name.startswith(incomplete)]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A study file, or a study's name.", autocompletion=complete_study
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FIELD=VALUE]...", help="Changes to the study."),
]

Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print results and failures alone.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Print a line for each level.")]

_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, characters that change the writing direction, and unpaired surrogates."""


class PlainConsole(Console):
    """Console that prints text unchanged: no markup, no emoji, no highlighting, no wrapped lines.

    Names, values and messages come from users and other programs. Only `Text` has styles. A
    character that controls the terminal is printed as its escape.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        segments = map(_escaped, super().render(renderable, options))
        yield from segments if self.is_terminal else _without_ends(segments)


out = PlainConsole()


def printable(text: str) -> str:
    r"""A line of text with escapes in place of characters that control a terminal.

    >>> print(printable("a\tb [b] \x1b[31m"))
    a\tb [b] \x1b[31m
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def _escaped(segment: Segment) -> Segment:
    if segment.control:
        return segment
    return Segment("\n".join(map(printable, segment.text.split("\n"))), segment.style)


def _without_ends(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Segments without the blanks at the ends of lines, with which rich fills cells of tables."""
    blanks = ""
    for segment in segments:
        for text in re.split("(\n)", segment.text):
            shown = text.rstrip(" ")
            if shown:
                yield Segment(("" if shown == "\n" else blanks) + shown, segment.style)
                blanks = ""
            blanks += text[len(shown) :]
    if blanks:
        yield Segment(blanks)


def print_failure(console: Console, reason: str) -> None:
    """Print a failure and its reason."""
    console.print(Text.assemble(("failed", "red"), f" {reason}"))


def print_json(rows: Iterable[Any]) -> None:
    """Print one JSON object a line."""
    for row in rows:
        sys.stdout.write(json.dumps(row, allow_nan=False) + "\n")


def write_file(path: Path, content: bytes, option: str = "--output") -> None:
    """Write the file of an option whole or not at all.

    Raises:
        SpecError: the file cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise SpecError(option, f"cannot be written ({error.strerror})", str(path)) from None
