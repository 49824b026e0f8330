"""Phases of a command before its first result: a spinner on a terminal, a line elsewhere.

The module imports nothing but rich, so that a phase is shown before torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text


@contextmanager
def phase(console: Console, text: str, live: bool = True, *, logged: bool = True) -> Iterator[None]:
    """Show the name of a phase while its body runs.

    Args:
        live: draw a spinner on a terminal, from a thread, which disturbs a debugger.
        logged: print a line where no spinner is drawn.
    """
    if live and console.is_terminal:
        with console.status(Text(text, style="dim")):
            yield
    else:
        if logged:
            console.print(f"{text} ...")
        yield
