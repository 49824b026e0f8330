"""`lth store ...`: disk usage, integrity and garbage collection of a result store."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from lth_core.errors import SpecError
from sweeps.cli.console import AsJson, complete_study, out, print_json
from sweeps.cli.lazy import lazy_imports

with lazy_imports():
    from lth_core.store import store as stores
    from sweeps.store import garbage, integrity, references
    from sweeps.store import usage as usages
    from sweeps.studies import find

store_app = typer.Typer(no_args_is_help=True, help="Show, check and clean up result stores.")

Where = Annotated[
    str,
    typer.Argument(
        metavar="[STORE]", help="A folder, s3://BUCKET/PREFIX, or a study, for its store.",
        autocompletion=complete_study,
    ),
]  # fmt: skip
HERE = "./lth-store"

MOST_FOREIGN = 100
"""Largest number of foreign files that `lth store verify` names."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@store_app.command("du")
def store_du(where: Where = HERE, as_json: AsJson = False) -> None:
    """Show disk usage by kind, study and content, the largest first."""
    store = find_store(where)
    needs = references.find_needs(store)
    rows = usages.usage(store, needs)
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
    for reason in needs.unread.values():
        out.print(f"not counted, as it cannot be read: {reason}")


@store_app.command("verify")
def store_verify(
    where: Where = HERE,
    as_json: AsJson = False,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Delete faulty entries; the next sweep makes them again."),
    ] = False,
    older: Annotated[
        str, typer.Option(help="With --remove: least age of deleted entries, as 30m or 1d.")
    ] = "1h",
) -> None:
    """Check every entry and blob.

    Prints a line for each fault, and exits with 1 if there is any.
    An entry that a sweep is writing may seem truncated; --remove leaves it.
    """
    store, since = find_store(where), _seconds(older)
    limit, faults, left = stores.store_clock(store) - since if remove else 0.0, 0, 0
    for fault in integrity.find_faults(store):
        removed = remove and _removed(store, fault, limit)
        faults, left = faults + 1, left + (remove and not removed)
        if as_json:
            print_json([{**asdict(fault), "removed": removed}])
        else:
            done = (", removed" if removed else f", left: younger than {older}") if remove else ""
            out.print(fault.fault + done)
    if not as_json:
        faulty = "1 entry is faulty." if faults == 1 else f"{faults} entries are faulty."
        out.print(faulty if faults else "No entry is faulty.")
        if left:
            out.print(f"{left} left, where a sweep may be writing; --older 0s removes that too.")
        _print_foreign(store)
    if faults:
        raise typer.Exit(1)


@store_app.command("gc")
def store_gc(
    where: Where = HERE,
    older: Annotated[
        str, typer.Option(help="Least age of deleted files, as 30m, 12h or 1d.")
    ] = "1d",
    forget: Annotated[
        str | None, typer.Option(metavar="STUDY", help="First delete this study and its trials.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be deleted, and delete nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete entries that no study needs, and files of interrupted writes."""
    deleted = garbage.collect(find_store(where), _seconds(older), forget, dry_run=dry_run)
    kinds: dict[str, dict[str, Any]] = defaultdict(lambda: {"entries": 0, "files": 0, "bytes": 0})
    for each in deleted:
        kinds[each.key[0]]["entries"] += each.whole
        kinds[each.key[0]]["files"] += len(each.files)
        kinds[each.key[0]]["bytes"] += sum(file.size for file in each.files)
    rows = sorted(kinds.items(), key=lambda item: -item[1]["bytes"])
    if as_json:
        print_json({"kind": kind, **row, "removed": not dry_run} for kind, row in rows)
        return
    if not rows:
        out.print("Nothing to delete.")
        return
    table = Table("to delete" if dry_run else "deleted", "entries", "files", "size", box=None)
    for kind, row in rows:
        table.add_row(kind, str(row["entries"]), str(row["files"]), human(row["bytes"]))
    out.print(table)


def _print_foreign(store: stores.Store) -> None:
    """Print files that the store did not write; they are faults only if they block entries."""
    foreign = list(store.foreign_files())
    for file in foreign[:MOST_FOREIGN]:
        out.print(f"{file.path}: {file.type} that is not the store's, left alone")
    if (more := len(foreign) - MOST_FOREIGN) > 0:
        out.print(f"... and {more:,} more that are not the store's")


def _removed(store: stores.Store, fault: integrity.Fault, limit: float) -> bool:
    """Delete a faulty entry, unless any of its files was written after the limit."""
    written = store.own_files(f"{fault.kind}/{fault.digest}")
    if any(file.modified > limit for file in written):
        return False
    store.delete(fault.kind, fault.digest)
    return True


def find_store(where: str) -> stores.Store:
    """The existing store at an address, or of a study.

    Raises:
        SpecError: there is no store.
    """
    known = [each for each in (HERE, stores.S3, "STUDY") if each != where]
    place = where
    if "://" not in where and not Path(where).expanduser().is_dir():
        try:
            place = find.find_study(where, swept=True).store
        except SpecError as error:
            if error.field != "STUDY":
                raise
            raise SpecError("STORE", "is neither a store nor a study", where, known) from None
    return stores.existing_store(place, "STORE")


def human(size: int) -> str:
    """A size in bytes, with three digits and a decimal unit.

    >>> human(999), human(1500), human(999_700)
    ('999 B', '1.5 kB', '1 MB')
    """
    scaled = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if scaled < 999.5:  # or three digits would be 1e+03
            return f"{scaled:.3g} {unit}"
        scaled /= 1000
    return f"{scaled:.3g} TB"


def _seconds(age: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", age)
    if not match:
        raise SpecError("--older", "must be a number of s, m, h or d", age, ["30m", "12h", "1d"])
    return float(match[1]) * UNITS[match[2]]
