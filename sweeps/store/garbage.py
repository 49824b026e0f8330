"""Garbage collection: entries that no study needs any more are deleted."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from lth_core.errors import CorruptEntryError, StoreError
from lth_core.parallel import map_in_threads
from lth_core.store import MANIFEST, Entry, Store, store_clock, store_time
from lth_core.store.files import StoredFile
from lth_core.store.kinds import KINDS, Lifetime, is_scratch, kind_and_key
from sweeps.store.records import STUDIES, TRIALS
from sweeps.store.references import Key, Needs, entries_of, find_needs, study_of

LOOK_AGAIN = 1.0
"""Least seconds between two searches for new studies while entries are deleted; a search that takes
longer is repeated after as long."""

FilesByEntry = dict[Key, list[StoredFile]]
"""All files of a store by entry."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Files of an entry that no study needs."""

    key: Key
    files: tuple[StoredFile, ...]
    whole: bool
    """Whether they are all files of the entry."""


def collect(
    store: Store, older: float, forget: str | None = None, *, dry_run: bool = False
) -> list[Garbage]:
    """Delete the files that no study of the store needs, and return them.

    Args:
        older: least age of deleted files in seconds, by the store's clock. Younger files may belong
            to a sweep that has just begun.
        forget: a study to delete first, with its trials.
        dry_run: return the files, and write nothing.

    Raises:
        SpecError: there is no such study.
        StoreError: a study cannot be read, so its needs are unknown.
    """
    forgotten = entries_of(store, forget) if forget else []
    now = store_time(store) if dry_run else store_clock(store)
    limit, files_of = now - older, by_entry(store)
    # Read after the listing, so that studies added since then count.
    described = _study_keys(store)
    needs = _needs(store, without=forgotten)
    dropped = [Garbage(key, tuple(files_of.get(key, ())), whole=True) for key in forgotten]
    if not dry_run:
        for key in forgotten:
            store.delete(*key)
    entries = read_entries(store, (key for key, files in files_of.items() if len(files) > 1))
    unneeded = list(_garbage(files_of, needs, entries, limit))
    if dry_run:
        return dropped + unneeded

    def again(left: Iterable[Garbage]) -> Iterator[Garbage]:
        part = {garbage.key: files_of[garbage.key] for garbage in left}
        return _garbage(part, _needs(store), entries, limit)

    return dropped + list(_removed(store, unneeded, described - {*forgotten}, again, limit))


def by_entry(store: Store) -> FilesByEntry:
    """Files in the store's own format, by entry."""
    files_of: FilesByEntry = defaultdict(list)
    for file in store.own_files():
        if key := kind_and_key(file.path):
            files_of[key].append(file)
    return dict(files_of)


def read_entries(store: Store, keys: Iterable[Key]) -> dict[Key, Entry]:
    """Entries of the keys that are not corrupt; several are read at a time."""

    def read(key: Key) -> Entry | None:
        try:
            return store.get(*key)
        except CorruptEntryError:
            return None

    every = list(keys)
    entries = zip(every, map_in_threads(read, every), strict=True)
    return {key: entry for key, entry in entries if entry}


def needed_by(key: Key, entry: Entry | None, digests: Collection[str]) -> bool:
    """Whether a study that needs these digests needs an entry, such as a point of its training."""
    kind, digest = key
    of = entry.meta.get(KINDS[kind].training) if entry else None
    return digest in digests or (isinstance(of, str) and of in digests)


def _garbage(
    files_of: FilesByEntry, needs: Needs, entries: dict[Key, Entry], limit: float
) -> Iterator[Garbage]:
    """Files that no study needs and that are old enough."""
    needed = needs.all()
    for key, files in files_of.items():
        kind, digest = KINDS[key[0]], key[1]
        over = kind.lifetime is Lifetime.TRAINING and ("trainings", digest) in entries
        lost = kind.of_recipe and not needed_by(key, entries.get(key), needed)
        orphaned = kind.lifetime is Lifetime.STUDY and study_of(digest) not in needs.digests
        if over or lost or orphaned or is_scratch(digest):
            if all(file.modified <= limit for file in files):
                yield Garbage(key, tuple(files), whole=True)
            continue
        unnamed = _unnamed(key, files, entries.get(key))
        old = tuple(file for file in unnamed if file.modified <= limit)
        if old:
            yield Garbage(key, old, whole=len(old) == len(files))


def _unnamed(key: Key, files: list[StoredFile], entry: Entry | None) -> Iterator[StoredFile]:
    """Files of an unfinished write, and blobs that the entry does not name."""
    kind = KINDS[key[0]]
    there = any(file.path.endswith(f"/{MANIFEST}") for file in files)
    for file in files:
        name = file.path.rpartition("/")[2]
        if entry:
            if name not in {MANIFEST, *(blob["file"] for blob in entry.blobs.values())}:
                yield file
        elif is_scratch(name) or (kind.of_recipe and kind.entries and not there):
            yield file


def _study_keys(store: Store) -> set[Key]:
    """Keys of the entries that describe studies and trials."""
    return {(kind, key) for kind in (STUDIES, TRIALS) for key in store.digests(kind)}


def _needs(store: Store, without: Collection[Key] = ()) -> Needs:
    """Digests that the studies need.

    Raises:
        StoreError: a study cannot be read, so its needs are unknown.
    """
    needs = find_needs(store, without)
    if needs.unread:
        raise StoreError(_unread(needs))
    return needs


def _removed(
    store: Store, listed: Iterable[Garbage], described: set[Key],
    again: Callable[[Iterable[Garbage]], Iterable[Garbage]], limit: float,
) -> Iterator[Garbage]:  # fmt: skip
    """Delete garbage, but none that a study needs which was added since the listing.

    Args:
        described: keys of studies and trials at the time of the listing.
        again: function from garbage to the part of it that still is garbage.
    """
    left = deque(listed)
    while left:
        begun, now = time.monotonic(), _study_keys(store)
        if not now <= described:
            described, left = now, deque(again(left))
        searched = time.monotonic()
        while left:
            garbage = left.popleft()
            if _remove(store, garbage, limit):
                yield garbage
            if time.monotonic() - searched > max(LOOK_AGAIN, searched - begun):
                break


def _remove(store: Store, garbage: Garbage, limit: float) -> bool:
    """Delete garbage, unless it was written again since the listing; whether it was deleted."""
    kind, digest = garbage.key
    if any(file.modified > limit for file in store.own_files(f"{kind}/{digest}")):
        return False
    if garbage.whole:
        store.delete(kind, digest)
    else:
        store.files.delete(*(file.path for file in garbage.files))
    return True


def _unread(needs: Needs) -> str:
    (kind, key), why = next(iter(needs.unread.items()))
    others = len(needs.unread) - 1
    and_others = f", and {others} more" if others else ""
    by = study_of(key) if kind == TRIALS else key
    return (
        f"store: {kind}/{key} cannot be read ({why}){and_others}, so what {study_of(key)} needs "
        f"is not known; sweep it again, or give it up with --forget {by}"
    )
