"""Disk usage of a store by kind of entry, by study and by content of the files."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from lth_core.store import Entry, Store
from lth_core.store.kinds import KINDS, content_of
from sweeps.store.garbage import by_entry, needed_by, read_entries
from sweeps.store.references import Key, Needs, study_of

NO_STUDY = "(none)"
"""Name in place of a study for entries that no study is known to need."""


@dataclass(slots=True)
class Usage:
    """Numbers of entries and bytes of one kind, study or content (``by``)."""

    by: str
    name: str
    entries: int = 0
    bytes: int = 0
    shared_bytes: int = 0
    """Number of bytes that other studies need too."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def usage(store: Store, needs: Needs) -> list[Usage]:
    """Usage by kind, by study and by content, each the largest first.

    Every file counts once in each grouping; a file that studies share counts for all of them.
    """
    files_of, rows = by_entry(store), dict[tuple[str, str], Usage]()
    needed = needs.all()
    # Entries that studies may need through the training that the entry names.
    indirect = [key for key in files_of if KINDS[key[0]].training and key[1] not in needed]
    entries = read_entries(store, indirect)

    def add(by: str, name: str, size: int, shared: int = 0) -> None:
        row = rows.setdefault((by, name), Usage(by, name))
        row.entries += 1
        row.bytes += size
        row.shared_bytes += shared

    for key, files in files_of.items():
        size, owners = sum(file.size for file in files), _owners(key, entries.get(key), needs)
        add("kind", key[0], size)
        for name in owners or [NO_STUDY]:
            add("study", name, size, size if len(owners) > 1 else 0)
        sizes = Counter[str]()
        for file in files:
            sizes[content_of(file.path)] += file.size
        for content, size in sizes.items():
            add("content", content, size)
    order = ("kind", "study", "content")
    return sorted(rows.values(), key=lambda row: (order.index(row.by), -row.bytes, row.name))


def _owners(key: Key, entry: Entry | None, needs: Needs) -> list[str]:
    """Names of the studies that need an entry."""
    if KINDS[key[0]].of_study:
        return [study_of(key[1])]
    return [name for name, digests in needs.digests.items() if needed_by(key, entry, digests)]
