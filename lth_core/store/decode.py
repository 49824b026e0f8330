"""Reading what another version or another hand may have written.

A reader takes what it needs and checks no more than that; whatever it trips over on the way is one
clean error, and of the store's entries one that counts as missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from safetensors import SafetensorError

from lth_core.errors import CorruptEntryError, LthError, SpecError, TicketFileError
from lth_core.redaction import without_secrets
from lth_core.spec.fields import LARGEST, is_a
from lth_core.store import Entry, Store

MISREAD = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError,
    SafetensorError,
)  # fmt: skip
"""What code trips over where it is told too little, or something else than it expects: too deep a
nesting and a tensor of an unusual type are RuntimeErrors, too large a number an ArithmeticError."""

T = TypeVar("T")

logger = logging.getLogger("lth")

_PLAIN = (bool, int, float, str, dict, list)
"""Types that JSON has; a value of one of them is checked by `is_a`."""


@contextmanager
def understood(what: str, error: type[LthError] = CorruptEntryError) -> Iterator[None]:
    """Turn whatever reading trips over into one error; one that is the user's already stays.

    Raises:
        LthError: of the given class, naming what was read.
    """
    try:
        yield
    except LthError:
        raise
    except MISREAD as found:
        raise error(f"{what}: cannot be read ({in_short(found)})") from None


def in_short(error: BaseException) -> str:
    """An exception of any code on one line; `without_secrets` before it is cut, for nobody knows
    half a secret from another word.

    >>> in_short(KeyError("step"))
    "KeyError: 'step'"
    """
    return f"{type(error).__name__}: {' '.join(without_secrets(str(error)).split())[:200]}"


def read_entry(store: Store, kind: str, digest: str, read: Callable[[Entry], T]) -> T | None:
    """What is made of an entry; None where there is none, or, with a warning, no sound one."""
    where = f"{kind}/{digest}"
    try:
        with understood(where):
            entry = store.get(kind, digest)
            return read(entry) if entry else None
    except (CorruptEntryError, SpecError, TicketFileError) as error:
        said = str(error) if str(error).startswith(where) else f"{where}: {error}"
        logger.warning("store: %s; it counts as missing", said)
        return None


def check(said: object, kind: Any, at: str = "it") -> None:
    """See that a value from JSON is of an annotated kind: a dataclass or typed dict as a mapping.

    Raises:
        TypeError: it is not, or a number is too large; names the place.
    """
    if kind in _PLAIN and is_a(said, kind) and (type(said) is not int or abs(said) <= LARGEST):
        return
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or (origin is UnionType and said is None):
        return
    if origin is UnionType:  # something, or null
        check(said, args[0], at)
    elif origin is dict:
        check(said, dict, at)
        for name, value in said.items():  # type: ignore[attr-defined]
            if args[1] is not Any:
                check(value, args[1], f"{at}.{name}")
    elif origin in (list, tuple):
        check(said, list, at)
        _check_each(said, args, at)  # type: ignore[arg-type]
    elif is_dataclass(kind) or is_typeddict(kind):
        check(said, dict, at)
        for name, inner in _hints(kind).items():
            check(said.get(name), inner, f"{at}.{name}")  # type: ignore[attr-defined]
    else:
        raise TypeError(f"{at} must be {kind.__name__}, but got {said!r:.80}")


def _check_each(said: list[Any], kinds: tuple[Any, ...], at: str) -> None:
    if len(kinds) > 1 and kinds[1] is not ...:  # a tuple of so many
        if len(said) != len(kinds):
            raise TypeError(f"{at} must have {len(kinds)} values, but got {len(said)}")
    elif kinds[0] is float and set(map(type, said)) == {float}:  # a long curve, at one go
        return
    else:
        kinds = kinds[:1] * len(said)
    for place, (value, kind) in enumerate(zip(said, kinds, strict=True)):
        check(value, kind, f"{at}.{place}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
