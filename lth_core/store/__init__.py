"""The store: content-addressed results in a folder, in S3, or in memory."""

from lth_core.store.store import (
    MANIFEST,
    MARKER,
    S3,
    Entry,
    Store,
    check_place,
    existing_store,
    make_folder,
    open_store,
    store_clock,
    store_time,
)

__all__ = [
    "MANIFEST",
    "MARKER",
    "S3",
    "Entry",
    "Store",
    "check_place",
    "existing_store",
    "make_folder",
    "open_store",
    "store_clock",
    "store_time",
]
