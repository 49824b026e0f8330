"""The command line, `lth`.

Exit codes: 0 done; 1 trials failed, or checks found differences or faults; 2 bad input; 130 stopped
by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import sys
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from lth_core.errors import LthError
from sweeps.cli.bench import bench_app
from sweeps.cli.catalogue import catalogue_app
from sweeps.cli.console import PlainConsole, out
from sweeps.cli.plan import plan_app
from sweeps.cli.report import report_app
from sweeps.cli.store import store_app
from sweeps.cli.sweep import sweep_app
from sweeps.cli.ticket import ticket_app
from sweeps.cli.ui import ui_app
from sweeps.studies.user_modules import search_last

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(plan_app)
app.add_typer(sweep_app)
app.add_typer(report_app)
app.add_typer(catalogue_app)
app.add_typer(ticket_app, name="ticket")
app.add_typer(store_app, name="store")
app.add_typer(ui_app)
app.add_typer(bench_app)


def _print_version(given: bool) -> None:
    """Print the versions of `lth`, Python and torch, without importing torch."""
    if given:
        lth, torch = version("lottery-ticket-sweeps"), version("torch")
        out.print(f"lth {lth}, Python {platform.python_version()}, torch {torch}")
        raise typer.Exit


@app.callback()
def lth(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True,
            help="Show the versions of lth, Python and torch, and exit.",
        ),
    ] = False,
) -> None:  # fmt: skip
    """Find lottery tickets: sweeps on Ray Tune, tickets in MLflow."""


def main() -> None:
    """Run the command line; an LthError is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack dashes and borders
    logging.basicConfig(level=logging.WARNING, format="lth: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where its caches and settings lie
    try:
        search_last(_current_folder())  # a study names functions as package.module:function
        app(prog_name="lth")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        PlainConsole(stderr=True).print(f"lth: {error.filename or 'output'}: no space is left")
        sys.exit(2)
    except LthError as error:
        message = " ".join(str(error).splitlines())  # a name may contain a line break
        PlainConsole(stderr=True).print(f"lth: {message}")
        sys.exit(2)


def _current_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise LthError("the current folder was deleted; change to another") from None


def run() -> None:
    """Run the command line and end the process without waiting for Ray."""
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    if "ray" not in sys.modules or not isinstance(code, int):
        sys.exit(code)  # type: ignore[arg-type]
    sys.stdout.flush()
    sys.stderr.flush()
    # Ray's remaining threads may crash a process that ends slowly.
    os._exit(code)
