"""Kinds of stored things: keys, content and lifetime of each, and the files of an entry.

All deletion follows this table, so a file that the store cannot have written is never deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

DIGEST = r"[0-9a-f]{64}"
STUDY = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}\.{DIGEST}"
"""A study's name and a digest."""


class Lifetime(Enum):
    """When `lth store gc` may delete an entry."""

    REFERENCED = "when no trial of a study needs the recipe of this digest"
    TRAINING = "as REFERENCED, and as soon as the training of this digest is stored"
    STUDY = "when the store has no study of this name"
    ALWAYS = "never, unless its study is forgotten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Everything that du, gc and verify need to know about one kind."""

    content: str
    """The content of an entry."""
    lifetime: Lifetime
    key: str = DIGEST
    """Pattern of its entries' names."""
    entries: bool = True
    """Whether it has entries with a manifest, or single files."""
    masks: bool = False
    """Whether its entries have masks, in the shapes of a training's layers."""
    training: str = ""
    """Field of an entry's JSON with the digest of its training; empty: the entry has the same."""

    @property
    def of_study(self) -> bool:
        """Whether the name of an entry begins with that of a study."""
        return self.key == STUDY

    @property
    def of_recipe(self) -> bool:
        """Whether the name of an entry is the digest of a recipe."""
        return self.lifetime in (Lifetime.REFERENCED, Lifetime.TRAINING)


KINDS = {
    "trainings": Kind(
        content="curves, mask and last weights", lifetime=Lifetime.REFERENCED, masks=True
    ),
    "points": Kind(
        content="weights at a step", lifetime=Lifetime.REFERENCED, masks=True, training="of"
    ),
    "tickets": Kind(content="a ticket from elsewhere", lifetime=Lifetime.REFERENCED),
    "measures": Kind(content="numbers of trainings", lifetime=Lifetime.REFERENCED),
    "latencies": Kind(content="latency of a training's network", lifetime=Lifetime.REFERENCED),
    "checkpoints": Kind(content="an interrupted training", lifetime=Lifetime.TRAINING),
    "claims": Kind(content="locks of trainings", lifetime=Lifetime.TRAINING, entries=False),
    "speeds": Kind(content="seconds per step", lifetime=Lifetime.ALWAYS),
    "linears": Kind(content="speed of a linear layer by oneDNN", lifetime=Lifetime.ALWAYS),
    "packs": Kind(content="speeds of packs of trainings", lifetime=Lifetime.ALWAYS),
    "studies": Kind(content="a study and its pins", lifetime=Lifetime.ALWAYS, key=STUDY),
    "trials": Kind(content="records of a trial", lifetime=Lifetime.ALWAYS, key=STUDY),
    "status": Kind(content="state of a sweep", lifetime=Lifetime.STUDY, key=STUDY),
}
"""Kind of each folder in a store."""

FILES = {"entry": "records", "mask": "masks", "state": "states"}
"""Name of a file's content in `lth store du`, by the first part of the file's name."""

_SCRATCH = re.compile(r"\.[0-9a-f]{32}\.tmp")
_FILE = re.compile(r"entry\.json|claim\.json|\w+-[0-9a-f]{16}\.safetensors")
_KEYS = {name: re.compile(kind.key) for name, kind in KINDS.items()}


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


def content_of(path: str) -> str:
    """The name that `lth store du` gives to the content of a file.

    >>> content_of("trainings/0a/mask-0123456789abcdef.safetensors"), content_of("claims/0a/x")
    ('masks', 'other')
    """
    return FILES.get(re.split(r"[.-]", path.rpartition("/")[2])[0], "other")


def kind_and_key(path: str) -> tuple[str, str] | None:
    """Kind and key of the entry that a file belongs to; None where no store writes such a file.

    Args:
        path: ``kind/key/file``, from the root of the store.

    >>> kind_and_key("status/run1/entry.json"), kind_and_key(f"points/{'0a' * 32}/notes.txt")
    (None, None)
    """
    kind, _, rest = path.partition("/")
    key, _, name = rest.partition("/")
    valid_key = is_key(kind, key) or (kind in KINDS and is_scratch(key))
    valid_file = _FILE.fullmatch(name) is not None or is_scratch(name)
    return (kind, key) if valid_key and valid_file else None
