"""Equality of values in memory and those of a source, by their content and code."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import MISSING, fields, is_dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch

FIXED = (type, FunctionType, BuiltinFunctionType, ModuleType, torch.dtype)
"""Types of values that other modules do not exchange while a process runs."""
PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple, frozenset)
_MOST_WRAPPERS = 16
"""Largest number of wrappers around a function; one may claim to wrap itself."""


def alike(value: Any, given: Any, changed: Collection[str] = ()) -> bool:
    """Whether a value may be that of a source: the same, or of equal content or code.

    Args:
        changed: attributes and keys that do not count.
    """
    if given is MISSING or value is given:
        return True
    if isinstance(given, CodeType):
        is_class = isinstance(value, type)
        return value.__qualname__ == given.co_qualname if is_class else _code_in(value) == given
    if not alike(type(value), type(given)):
        return False
    match given:
        case FunctionType():
            return _code_in(value) == _code_in(given)
        case ModuleType():
            return bool(value.__name__ == given.__name__)
        case type():  # of a module that was loaded again
            return _written(value) == _written(given)
        case dict():  # others may be registered beside them
            counted = [(key, part) for key, part in given.items() if key not in changed]
            return all(key in value and _alike_part(value[key], part) for key, part in counted)
        case list() | tuple():  # an empty list is filled by code
            is_same = len(value) == len(given) and all(map(_alike_part, value, given))
            return is_same or given == []
        case set():
            return bool(value >= given)
        case SimpleNamespace():
            return alike(vars(value), vars(given), changed)
    if is_dataclass(given):
        names = [f.name for f in fields(given) if f.name not in changed]
        return all(_alike_part(getattr(value, n, None), getattr(given, n, None)) for n in names)
    are_nan = value != value and given != given
    return not isinstance(given, (*FIXED, *PLAIN)) or are_nan or bool(value == given)


def _alike_part(value: Any, given: Any) -> bool:
    """Whether an item or attribute may be that of a source; one that code may change is."""
    return not isinstance(given, (*FIXED, *PLAIN)) or alike(value, given)


def _code_in(value: object) -> CodeType | None:
    return getattr(function_in(value), "__code__", None)


def _written(kind: type) -> tuple[object, ...]:
    """Name, code, and plain attributes of a class."""
    plain = {name: part for name, part in vars(kind).items() if isinstance(part, PLAIN)}
    return kind.__qualname__, set(codes_of(kind)), plain


def codes_of(owner: ModuleType | type, seen: set[object] | None = None) -> Iterator[CodeType]:
    """Code of the functions and methods that a module or class defines; `seen` classes left out."""
    seen = {owner} if seen is None else seen
    module = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    for value in list(vars(owner).values()):
        function = function_in(value)
        if function is not None:
            yield function.__code__
        elif isinstance(value, type) and value.__module__ == module and value not in seen:
            seen.add(value)
            yield from codes_of(value, seen)


def function_in(value: object) -> FunctionType | None:
    """The function below decorators, static and class methods and properties."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    for _ in range(_MOST_WRAPPERS):
        try:  # as no `__getattr__` of its own may answer
            value = object.__getattribute__(value, "__dict__").get("__wrapped__", value)
        except AttributeError:
            break
    return value if isinstance(value, FunctionType) else None
