"""Kinds of stored things: how the entries of each are named, and the files that one may consist of.

Whatever deletes goes by this table, so a file that the store cannot have written stays.
"""

from __future__ import annotations

import re

DIGEST = r"[0-9a-f]{64}"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""The name of a study."""

KINDS = {
    "trainings": DIGEST,
    "points": DIGEST,
    "measures": DIGEST,
    "checkpoints": DIGEST,
    "claims": DIGEST,
    "speeds": DIGEST,
    "studies": rf"{NAME}\.{DIGEST}",
    "trials": rf"{NAME}\.{DIGEST}",
    "status": rf"{NAME}\.{DIGEST}",
}
"""Each kind's folder in a store, and the pattern of its entries' names."""

_SCRATCH = re.compile(r"\.[0-9a-f]{32}\.tmp")
_FILE = re.compile(r"entry\.json|claim\.json|\w+-[0-9a-f]{16}\.safetensors")
_KEYS = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}


def is_key(kind: str, name: str) -> bool:
    """Whether an entry of a kind can have a name.

    >>> is_key("checkpoints", "run1"), is_key("trainings", "0a" * 32), is_key("src", "0a" * 32)
    (False, True, False)
    """
    return kind in _KEYS and _KEYS[kind].fullmatch(name) is not None


def is_scratch(name: str) -> bool:
    """Whether a file or folder was left by a write or a deletion that was cut short.

    >>> is_scratch(".0123456789abcdef0123456789abcdef.tmp"), is_scratch("a-study.tmp")
    (True, False)
    """
    return _SCRATCH.fullmatch(name) is not None


def key_of(path: str) -> tuple[str, str] | None:
    """Kind and key of the entry that a file belongs to; None where no store writes such a file.

    Args:
        path: ``kind/key/file``, from the root of the store.

    >>> key_of("status/run1/entry.json"), key_of(f"points/{'0a' * 32}/notes.txt")
    (None, None)
    """
    kind, _, rest = path.partition("/")
    key, _, name = rest.partition("/")
    own_key = is_key(kind, key) or (kind in KINDS and is_scratch(key))
    own_file = _FILE.fullmatch(name) is not None or is_scratch(name)
    return (kind, key) if own_key and own_file else None
