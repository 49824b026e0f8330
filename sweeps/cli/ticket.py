"""`lth ticket ...`: tickets in the store, and ticket files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sweeps.cli.console import AsJson, out, print_json
from sweeps.cli.lazy import lazy_imports
from sweeps.phases import phase
from tracking.text import MISSING

with lazy_imports():
    from sweeps.report import promotion
    from sweeps.store import ticket_compare, ticket_list, tickets

ticket_app = typer.Typer(no_args_is_help=True, help="List, compare and check tickets.")


StoreOption = Annotated[str, typer.Option(help="The result store.")]
TicketArgument = Annotated[
    str, typer.Argument(help="A ticket file, or a digest of the store, or its start.")
]


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
    training: Annotated[
        str | None,
        typer.Option(
            metavar="DIGEST",
            help="The training_digest, or its start, of the trained network, where several "
            "trainings started from the ticket.",
        ),
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
        store, digest, output, training=training, compact=compact, onnx=onnx,
        torch_export=torch_export,
    )  # fmt: skip
    for line in files:
        out.print(line, soft_wrap=True, markup=False)


@ticket_app.command("ls")
def ticket_ls(
    study: Annotated[str | None, typer.Option(help="Only tickets of this study.")] = None,
    branch: Annotated[str | None, typer.Option(help="Only tickets of this branch.")] = None,
    level: Annotated[int | None, typer.Option(help="Only tickets of this level.")] = None,
    density: Annotated[
        str | None, typer.Option(metavar="LOW..HIGH", help="Only densities in this range.")
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(help="Only this verdict: winning, matching, ...")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="[-]COLUMN", help="Sort by a column; with -, the largest first."),
    ] = None,
    store: StoreOption = "./lth-store",
    as_json: AsJson = False,
) -> None:
    """List the tickets in the store."""
    chosen = ticket_list.TicketFilter(
        study=study, branch=branch, level=level, density=density, verdict=verdict, sort=sort
    )
    rows = ticket_list.list_tickets(store, chosen)
    if as_json:
        print_json(rows)
        return
    columns = ["ticket", "study", "seed", "branch", "level", "density", "test", "verdict"]
    if mixed := any(row["settings"] == "earlier" for row in rows):
        columns.append("settings")
    table = Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(
            row["ticket_digest"][:12], row["study"], str(row["seed"]), row["branch"],
            str(row["level"]), f"{row['density']:.4f}", f"{row['final_test_accuracy']:.4f}",
            row["verdict"] or "", *[row["settings"]] * mixed,
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
def ticket_show(name: TicketArgument, store: StoreOption = "./lth-store") -> None:
    """Check a ticket and show its contents."""
    for field, value in tickets.describe_ticket(tickets.open_ticket(store, name)).items():
        out.print(f"{field:14} {value}")


@ticket_app.command("diff")
def ticket_diff(
    a: TicketArgument, b: TicketArgument, store: StoreOption = "./lth-store",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compare two tickets by layer: densities, overlap of the masks, signs of the weights."""
    rows = ticket_compare.layer_differences(
        tickets.open_ticket(store, a), tickets.open_ticket(store, b)
    )
    if as_json:
        print_json(row.to_json() for row in rows)
        return
    columns = ("layer", "weights", "density A", "density B", "overlap", "by chance", "same signs")
    table = Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.layer, f"{row.weights:,}", f"{row.kept_a / row.weights:.4f}",
            f"{row.kept_b / row.weights:.4f}", f"{row.overlap:.4f}", f"{row.chance:.4f}",
            MISSING if row.signs is None else f"{row.signs:.4f}",
        )  # fmt: skip
    out.print(table)


@ticket_app.command("verify")
def ticket_verify(
    digest: Annotated[
        str, typer.Argument(help="A ticket_digest of `lth report --json`, or its start.")
    ],
    store: StoreOption = "./lth-store",
) -> None:
    """Make a ticket again from its recipe, in memory, and compare it bit for bit.

    Exits with 1 if it differs: on another machine, with another version of torch or number of
    threads, or in a pack, sums are rounded in another way. A budget of milliseconds is measured
    again, and may leave another structure.
    """
    with phase(out, "training again what the ticket is made from", logged=False):
        remade = ticket_compare.remake(store, digest)
    for line in remade.lines():
        out.print(line)
    if remade.differences:
        raise typer.Exit(1)
