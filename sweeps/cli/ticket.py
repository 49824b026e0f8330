"""`lth ticket ...`: tickets in the store, and ticket files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sweeps.cli.console import AsJson, out, print_json
from sweeps.cli.lazy import lazy_imports

with lazy_imports():
    from sweeps.report import promotion
    from sweeps.store import tickets

ticket_app = typer.Typer(no_args_is_help=True, help="List, export and show tickets.")


StoreOption = Annotated[str, typer.Option(help="The result store.")]


@ticket_app.command("export")
def ticket_export(
    digest: Annotated[
        str, typer.Argument(help="A ticket_digest of `lth report --json`, or its start.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The safetensors file to write.")
    ] = None,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="Write the trained network, without the channels that do not matter, in place of "
            "the ticket.",
        ),
    ] = False,
    onnx: Annotated[
        Path | None, typer.Option(help="Also write that smaller network to an ONNX file.")
    ] = None,
    torch_export: Annotated[
        Path | None, typer.Option(help="Also write it to a file of torch.export.")
    ] = None,
    store: StoreOption = "./lth-store",
) -> None:
    """Write a ticket to one safetensors file, which `lth_core.load_ticket` reads.

    With --compact it is the trained network, physically smaller, which `lth_core.load_compact`
    reads.
    """
    if not (output or onnx or torch_export) or (compact and not output):
        raise typer.BadParameter("must name the file to write.", param_hint="'-o' / '--output'")
    files = tickets.export(
        store, digest, output, compact=compact, onnx=onnx, torch_export=torch_export
    )
    for line in files:
        out.print(line, soft_wrap=True, markup=False)


@ticket_app.command("ls")
def ticket_ls(
    store: StoreOption = "./lth-store",
    as_json: AsJson = False,
) -> None:
    """List the tickets in the store."""
    rows = tickets.listing(store)
    if as_json:
        print_json(rows)
        return
    table = Table(
        "ticket", "study", "trial", "seed", "branch", "level", "density", "test", box=None
    )
    for row in rows:
        table.add_row(
            row["ticket_digest"][:12], row["study"], row["trial"], str(row["seed"]), row["branch"],
            str(row["level"]), f"{row['density']:.4f}", f"{row['final_test_accuracy']:.4f}",
        )  # fmt: skip
    out.print(table)


@ticket_app.command("promote")
def ticket_promote(
    digest: Annotated[
        str, typer.Argument(help="A ticket_digest of `lth report --json`, or its start.")
    ],
    model: Annotated[
        str, typer.Option(help="The registered model; made where it is missing.")
    ] = "winning-tickets",
    alias: Annotated[
        str | None, typer.Option(help="A name for the version, beside its number.")
    ] = None,
    store: StoreOption = "./lth-store",
) -> None:
    """Register a ticket in MLflow's model registry, with its provenance.

    Reports and `lth sync` register the sparsest winning ticket of each cell by themselves.
    """
    out.print(promotion.promote(store, digest, model, alias))


@ticket_app.command("show")
def ticket_show(file: Annotated[Path, typer.Argument(help="A ticket file.")]) -> None:
    """Check a ticket file and show its contents."""
    for name, value in tickets.describe_ticket(file).items():
        out.print(f"{name:14} {value}", soft_wrap=True, markup=False)
