"""`lth bench`: the benchmarks."""

from __future__ import annotations

from typing import Annotated

import typer

from lth_core.errors import SpecError
from sweeps.cli.console import AsJson, out, print_json
from sweeps.cli.lazy import lazy_imports

with lazy_imports():
    from sweeps.bench import benchmarks
    from sweeps.run import signals

bench_app = typer.Typer()


@bench_app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="compact, pack, plan, prune, report, start, study, sweep, train; by default all.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the benchmarks.

    Each figure is printed with its limit; a ratio below 1 is within it.
    """
    known = benchmarks.BENCHMARKS
    for name in names or []:
        if name not in known:
            raise SpecError("NAME", "is not known", name, known)
    try:
        with signals.raise_on_signal():
            for measured in (each for name in names or known for each in known[name]()):
                if as_json:
                    print_json([measured.to_json()])
                else:
                    out.print(str(measured))
    except signals.InterruptedSweepError as stopped:
        raise typer.Exit(stopped.code) from None
