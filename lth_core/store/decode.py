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
_NUMBERS = (float, float | None)


@contextmanager
def decoding(name: str, error: type[LthError] = CorruptEntryError) -> Iterator[None]:
    """Turn an exception that malformed input raises into one error; an LthError stays as it is.

    Raises:
        LthError: of the given class; its message begins with ``name``.
    """
    try:
        yield
    except LthError:
        raise
    except DECODE_ERRORS as cause:
        raise error(f"{name}: cannot be read ({exception_text(cause)})") from None


def read_entry(store: Store, kind: str, digest: str, read: Callable[[Entry], T]) -> T | None:
    """An entry, decoded by `read`; None where it is missing or, with a warning, corrupt."""
    name = f"{kind}/{digest}"
    try:
        with decoding(name):
            entry = store.get(kind, digest)
            return read(entry) if entry else None
    except (CorruptEntryError, SpecError, TicketFileError) as error:
        message = str(error) if str(error).startswith(name) else f"{name}: {error}"
        remove = "`lth store verify --remove` removes it"
        logger.warning("store: %s; it counts as missing (%s)", message, remove)
        return None


def check(value: object, annotation: Any, path: str = "it") -> None:
    """Check a value from JSON against an annotation; a dataclass or typed dict is a mapping.

    Args:
        path: name of the value in errors.

    Raises:
        TypeError: a type is wrong, or a number is too large.
    """
    too_large = type(value) is int and abs(value) > LARGEST
    if annotation in _PLAIN and is_a(value, annotation) and not too_large:
        return
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Any or (origin is UnionType and value is None):
        return
    if origin is UnionType:  # a type, or null
        check(value, args[0], path)
    elif origin is dict:
        check(value, dict, path)
        for name, element in value.items():  # type: ignore[attr-defined]
            if args[1] is not Any:
                check(element, args[1], f"{path}.{name}")
    elif origin in (list, tuple):
        check(value, list, path)
        _check_elements(value, args, path)  # type: ignore[arg-type]
    elif is_dataclass(annotation) or is_typeddict(annotation):
        check(value, dict, path)
        for name, field_annotation in _hints(annotation).items():
            check(value.get(name), field_annotation, f"{path}.{name}")  # type: ignore[attr-defined]
    else:
        raise TypeError(f"{path} must be {annotation.__name__}, but got {value!r:.80}")


def _check_elements(values: list[Any], annotations: tuple[Any, ...], path: str) -> None:
    if len(annotations) > 1 and annotations[1] is not ...:  # a tuple of fixed length
        if len(values) != len(annotations):
            raise TypeError(f"{path} must have {len(annotations)} values, but got {len(values)}")
    elif annotations[0] in _NUMBERS and set(map(type, values)) == {float}:  # fast for a long curve
        return
    else:
        annotations = annotations[:1] * len(values)
    for position, (value, annotation) in enumerate(zip(values, annotations, strict=True)):
        check(value, annotation, f"{path}.{position}")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)
