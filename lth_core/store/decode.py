"""Decoding stored entries that another version or program may have written.

A reader checks the values that it needs. Any exception in it becomes one LthError; an entry of the
store that cannot be decoded counts as missing.
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

from lth_core.errors import (
    CorruptEntryError,
    LthError,
    SpecError,
    TicketFileError,
    exception_text,
)
from lth_core.spec.fields import LARGEST, is_a
from lth_core.store import Entry, Store

DECODE_ERRORS = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError,
    SafetensorError,
)  # fmt: skip
"""Exceptions that malformed input can raise. Too deep a nesting and a tensor of an unusual type are
RuntimeErrors, too large a number is an ArithmeticError."""

T = TypeVar("T")

logger = logging.getLogger("lth")

_PLAIN = (bool, int, float, str, dict, list)
"""Types that JSON has; a value of one of them is checked by `is_a`."""


@contextmanager
def decoding(what: str, error: type[LthError] = CorruptEntryError) -> Iterator[None]:
    """Turn an exception that malformed input raises into one error; an LthError stays as it is.

    Raises:
        LthError: of the given class; its message begins with ``what``.
    """
    try:
        yield
    except LthError:
        raise
    except DECODE_ERRORS as cause:
        raise error(f"{what}: cannot be read ({exception_text(cause)})") from None


def read_entry(store: Store, kind: str, digest: str, read: Callable[[Entry], T]) -> T | None:
    """An entry, decoded by `read`; None where it is missing or, with a warning, corrupt."""
    where = f"{kind}/{digest}"
    try:
        with decoding(where):
            entry = store.get(kind, digest)
            return read(entry) if entry else None
    except (CorruptEntryError, SpecError, TicketFileError) as error:
        message = str(error) if str(error).startswith(where) else f"{where}: {error}"
        logger.warning("store: %s; it counts as missing", message)
        return None


def check(value: object, kind: Any, at: str = "it") -> None:
    """Check a value from JSON against an annotation; a dataclass or typed dict is a mapping.

    Raises:
        TypeError: a type is wrong, or a number is too large. The message names the place.
    """
    if kind in _PLAIN and is_a(value, kind) and (type(value) is not int or abs(value) <= LARGEST):
        return
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or (origin is UnionType and value is None):
        return
    if origin is UnionType:  # a type, or null
        check(value, args[0], at)
    elif origin is dict:
        check(value, dict, at)
        for name, each in value.items():  # type: ignore[attr-defined]
            if args[1] is not Any:
                check(each, args[1], f"{at}.{name}")
    elif origin in (list, tuple):
        check(value, list, at)
        _check_each(value, args, at)  # type: ignore[arg-type]
    elif is_dataclass(kind) or is_typeddict(kind):
        check(value, dict, at)
        for name, inner in _hints(kind).items():
            check(value.get(name), inner, f"{at}.{name}")  # type: ignore[attr-defined]
    else:
        raise TypeError(f"{at} must be {kind.__name__}, but got {value!r:.80}")


def _check_each(values: list[Any], kinds: tuple[Any, ...], at: str) -> None:
    if len(kinds) > 1 and kinds[1] is not ...:  # a tuple of fixed length
        if len(values) != len(kinds):
            raise TypeError(f"{at} must have {len(kinds)} values, but got {len(values)}")
    elif kinds[0] is float and set(map(type, values)) == {float}:  # a long curve: checked at once
        return
    else:
        kinds = kinds[:1] * len(values)
    for place, (value, kind) in enumerate(zip(values, kinds, strict=True)):
        check(value, kind, f"{at}.{place}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
