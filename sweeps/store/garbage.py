"""Garbage collection: delete the entries that no study needs."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from lth_core.errors import CorruptEntryError, SpecError, StoreError
from lth_core.parallel import map_in_threads
from lth_core.store import MANIFEST, Entry, Store, store_clock, store_time
from lth_core.store.files import StoredFile
from lth_core.store.kinds import KINDS, Lifetime, is_scratch, kind_and_key
from sweeps.store.records import STUDIES, TRIALS
from sweeps.store.references import Key, Needs, entries_of, find_needs, study_of
from sweeps.store.status import is_running

SEARCH_INTERVAL = 1.0
"""Seconds of deletion after which new studies are searched for, or the duration of the last search
where that is longer."""

FilesByEntry = dict[Key, list[StoredFile]]
"""All files of a store by entry."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Files of an entry that no study needs."""

    key: Key
    files: tuple[StoredFile, ...]
    whole: bool
    """Whether these are all files of the entry."""


def collect(
    store: Store, min_age: float, forget: str | None = None, *, dry_run: bool = False
) -> list[Garbage]:
    """Delete the files that no study of the store needs, and return them.

    Args:
        min_age: least age of deleted files in seconds, by the store's clock. Younger files may
            belong to a sweep that has just begun.
        forget: a study to delete first, with its trials.
        dry_run: return the files, but delete nothing.

    Raises:
        SpecError: there is no such study, or it is being swept.
        StoreError: a study cannot be read, so its needs are unknown.
    """
    if forget and is_running(store, forget):
        rule = f"must not be running, as `lth status {forget}` shows; end its sweep first"
        raise SpecError("--forget", rule, forget)
    forgotten = entries_of(store, forget) if forget else []
    now = store_time(store) if dry_run else store_clock(store)
    limit, files_of = now - min_age, by_entry(store)
    # Read after the listing, so that studies added since then count.
    known = _study_keys(store)
    needs = _needs(store, without=forgotten)
    dropped = [Garbage(key, tuple(files_of.get(key, ())), whole=True) for key in forgotten]
    if not dry_run:
        for key in forgotten:
            store.delete(*key)
    entries = read_entries(store, (key for key, files in files_of.items() if len(files) > 1))
    unneeded = list(_garbage(files_of, needs, entries, limit))
    if dry_run:
        return dropped + unneeded

    def still_unneeded(listed: Iterable[Garbage]) -> Iterator[Garbage]:
        part = {garbage.key: files_of[garbage.key] for garbage in listed}
        return _garbage(part, _needs(store), entries, limit)

    known -= {*forgotten}
    return dropped + list(_delete_all(store, unneeded, known, still_unneeded, limit))


def by_entry(store: Store) -> FilesByEntry:
    """Files in the store's own format, by entry."""
    files_of: FilesByEntry = defaultdict(list)
    for file in store.own_files():
        if key := kind_and_key(file.path):
            files_of[key].append(file)
    return dict(files_of)


def read_entries(store: Store, keys: Iterable[Key]) -> dict[Key, Entry]:
    """Entries that are not corrupt, by key; several are read at a time."""

    def read(key: Key) -> Entry | None:
        try:
            return store.get(*key)
        except CorruptEntryError:
            return None

    listed = list(keys)
    entries = zip(listed, map_in_threads(read, listed), strict=True)
    return {key: entry for key, entry in entries if entry}


def needed_by(key: Key, entry: Entry | None, digests: Collection[str]) -> bool:
    """Whether an entry is among these needs, by its own digest or that of its training."""
    kind, digest = key
    training = entry.meta.get(KINDS[kind].training) if entry else None
    return digest in digests or (isinstance(training, str) and training in digests)


def _garbage(
    files_of: FilesByEntry, needs: Needs, entries: dict[Key, Entry], limit: float
) -> Iterator[Garbage]:
    """Files that no study needs and that are old enough."""
    needed = needs.all()
    for key, files in files_of.items():
        kind, digest = KINDS[key[0]], key[1]
        finished = kind.lifetime is Lifetime.TRAINING and ("trainings", digest) in entries
        unneeded = kind.of_recipe and not needed_by(key, entries.get(key), needed)
        orphaned = kind.lifetime is Lifetime.STUDY and study_of(digest) not in needs.digests
        if finished or unneeded or orphaned or is_scratch(digest):
            if all(file.modified <= limit for file in files):
                yield Garbage(key, tuple(files), whole=True)
            continue
        leftover = _leftover_files(key, files, entries.get(key))
        old = tuple(file for file in leftover if file.modified <= limit)
        if old:
            yield Garbage(key, old, whole=len(old) == len(files))


def _leftover_files(key: Key, files: list[StoredFile], entry: Entry | None) -> Iterator[StoredFile]:
    """Files of an unfinished write, and blobs that the entry does not name."""
    kind = KINDS[key[0]]
    has_manifest = any(file.path.endswith(f"/{MANIFEST}") for file in files)
    for file in files:
        name = file.path.rpartition("/")[2]
        if entry:
            if name not in {MANIFEST, *(blob["file"] for blob in entry.blobs.values())}:
                yield file
        elif is_scratch(name) or (kind.of_recipe and kind.entries and not has_manifest):
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
        raise StoreError(_unread_text(needs))
    return needs


def _delete_all(
    store: Store, listed: Iterable[Garbage], known: set[Key],
    still_unneeded: Callable[[Iterable[Garbage]], Iterable[Garbage]], limit: float,
) -> Iterator[Garbage]:  # fmt: skip
    """Delete garbage, except what studies added since the listing need; yields the deleted part.

    Args:
        known: keys of studies and trials at the time of the listing.
        still_unneeded: function from garbage to the part of it that no study needs now.
        limit: latest time of modification at which a file is old enough.
    """
    remaining = deque(listed)
    while remaining:
        search_start, now_known = time.monotonic(), _study_keys(store)
        if not now_known <= known:
            known, remaining = now_known, deque(still_unneeded(remaining))
        search_end = time.monotonic()
        while remaining:
            garbage = remaining.popleft()
            if _delete(store, garbage, limit):
                yield garbage
            if time.monotonic() - search_end > max(SEARCH_INTERVAL, search_end - search_start):
                break


def _delete(store: Store, garbage: Garbage, limit: float) -> bool:
    """Delete garbage, unless it was written again since the listing; True if it was deleted."""
    kind, digest = garbage.key
    if any(file.modified > limit for file in store.own_files(f"{kind}/{digest}")):
        return False
    if garbage.whole:
        store.delete(kind, digest)
    else:
        store.files.delete(*(file.path for file in garbage.files))
    return True


def _unread_text(needs: Needs) -> str:
    (kind, key), error = next(iter(needs.unread.items()))
    others = len(needs.unread) - 1
    and_others = f", and {others} more" if others else ""
    forget = study_of(key) if kind == TRIALS else key
    return (
        f"store: {kind}/{key} cannot be read ({error}){and_others}, so the needs of "
        f"{study_of(key)} are not known; sweep it again, or delete it with --forget {forget}"
    )
