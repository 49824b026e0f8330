"""`lth store ...`: what takes the space, what is broken, what can go."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lth_core.errors import SpecError
from lth_core.store import S3, Store, existing_store, store_clock
from sweeps.cli.console import AsJson, out, print_json

if TYPE_CHECKING:
    from sweeps.store.integrity import Fault

store_app = typer.Typer(no_args_is_help=True, help="The result store: its size, its soundness.")

Where = Annotated[
    str, typer.Argument(metavar="[STORE]", help="A folder, s3://BUCKET/PREFIX, or a study's.")
]
HERE = "./lth-store"

MOST_FOREIGN = 100
"""Files that are not the store's which `lth store verify` names."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@store_app.command("du")
def store_du(where: Where = HERE, as_json: AsJson = False) -> None:
    """Say what takes the space: by kind of entry, by study, by content; the biggest first."""
    from sweeps.store.references import find_needs
    from sweeps.store.usage import usage

    store = the_store(where)
    needs = find_needs(store)
    rows = usage(store, needs)
    if as_json:
        print_json(row.to_json() for row in rows)
        return
    for by in dict.fromkeys(row.by for row in rows):
        table = Table(by, "entries", "size", *(["shared"] if by == "study" else []), box=None)
        for row in rows:
            if row.by == by:
                shared = [human(row.shared_bytes)] if by == "study" else []
                table.add_row(row.name, str(row.entries), human(row.bytes), *shared)
        out.print(table)
    for why in needs.unread.values():
        out.print(f"not counted, for it cannot be read: {why}", soft_wrap=True, markup=False)


@store_app.command("verify")
def store_verify(
    where: Where = HERE,
    as_json: AsJson = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete faulty entries; the next sweep remakes them.")
    ] = False,
    older: Annotated[
        str, typer.Option(help="How long ago what is removed must have been written: 30m, 1d.")
    ] = "1h",
) -> None:
    """Read every entry and blob of the store; a line for each fault, and 1 where there is any.

    An entry that a sweep is writing meanwhile may look cut off; --remove leaves it alone."""
    from dataclasses import asdict

    from sweeps.store.integrity import find_faults

    store, since = the_store(where), _seconds(older)
    limit, found, left = store_clock(store) - since if remove else 0.0, 0, 0
    for fault in find_faults(store):
        removed = remove and _removed(store, fault, limit)
        found, left = found + 1, left + (remove and not removed)
        if as_json:
            print_json([{**asdict(fault), "removed": removed}])
        else:
            done = (", removed" if removed else f", left: younger than {older}") if remove else ""
            out.print(fault.fault + done, soft_wrap=True, markup=False)
    if not as_json:
        faulty = "1 entry is faulty." if found == 1 else f"{found} entries are faulty."
        out.print(faulty if found else "Sound.", markup=False)
        if left:
            said = f"{left} left, where a sweep may be writing; --older 0s removes that too."
            out.print(said, markup=False)
        _print_foreign(store)
    if found:
        raise typer.Exit(1)


@store_app.command("gc")
def store_gc(
    where: Where = HERE,
    older: Annotated[
        str, typer.Option(help="How long ago it must have been written: 30m, 12h, 1d.")
    ] = "1d",
    forget: Annotated[
        str | None, typer.Option(metavar="STUDY", help="First give up a study and its trials.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what no study of the store needs any more, and what was left half written."""
    from sweeps.store.garbage import collect

    gone = collect(the_store(where), _seconds(older), forget, dry_run=dry_run)
    kinds: dict[str, dict[str, Any]] = defaultdict(lambda: {"entries": 0, "files": 0, "bytes": 0})
    for garbage in gone:
        kinds[garbage.key[0]]["entries"] += garbage.whole
        kinds[garbage.key[0]]["files"] += len(garbage.files)
        kinds[garbage.key[0]]["bytes"] += sum(found.size for found in garbage.files)
    rows = sorted(kinds.items(), key=lambda item: -item[1]["bytes"])
    if as_json:
        print_json({"kind": kind, **row, "removed": not dry_run} for kind, row in rows)
        return
    if not rows:
        out.print("Nothing to delete.")
        return
    table = Table("would go" if dry_run else "gone", "entries", "files", "size", box=None)
    for kind, row in rows:
        table.add_row(kind, str(row["entries"]), str(row["files"]), human(row["bytes"]))
    out.print(table)


def _print_foreign(store: Store) -> None:
    """Name what the store has not written; it is no fault, unless it is in an entry's way."""
    foreign = list(store.foreign_files())
    for found in foreign[:MOST_FOREIGN]:
        about = f"{found.path}: {found.what} that is not the store's, left alone"
        out.print(about, soft_wrap=True, markup=False)
    if (more := len(foreign) - MOST_FOREIGN) > 0:
        out.print(f"... and {more:,} more that are not the store's", markup=False)


def _removed(store: Store, fault: Fault, limit: float) -> bool:
    """Delete a faulty entry, unless any of it was written since."""
    written = store.own_files(f"{fault.kind}/{fault.digest}")
    if any(found.modified > limit for found in written):
        return False
    store.delete(fault.kind, fault.digest)
    return True


def the_store(where: str) -> Store:
    """The store at a place, or of a study; nothing is made.

    Raises:
        SpecError: there is none.
    """
    from sweeps.studies.find import find_study

    known = [HERE, S3, "STUDY"]
    place = where
    if "://" not in where and not Path(where).expanduser().is_dir():
        try:
            place = find_study(where, swept=True).store
        except SpecError as error:
            if error.field != "STUDY":
                raise
            raise SpecError("STORE", "is neither a store nor a study", where, known) from None
    return existing_store(place, "STORE")


def human(size: int) -> str:
    """Bytes as a person reads them.

    >>> human(999), human(1500), human(999_700)
    ('999 B', '1.5 kB', '1 MB')
    """
    scaled = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if scaled < 999.5:  # or three digits would be 1e+03
            return f"{scaled:.3g} {unit}"
        scaled /= 1000
    return f"{scaled:.3g} TB"


def _seconds(said: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", said)
    if not found:
        raise SpecError("--older", "must be a number of s, m, h or d", said, ["30m", "12h", "1d"])
    return float(found[1]) * UNITS[found[2]]
