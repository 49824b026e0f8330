"""Checks of spec fields, each raising a SpecError that names the field; and durations."""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress
from functools import cache, lru_cache
from math import isfinite
from numbers import Real
from typing import get_args

from lth_core.errors import SpecError

STRICT = {"extra": "forbid", "use_attribute_docstrings": True}
"""Pydantic's configuration of a spec: unknown fields are errors."""

DURATION = re.compile(r"(\d+)it|(\d+(?:\.\d+)?)ep|(\d+(?:\.\d+)?)%")
"""Steps, epochs, or percent of training."""

LARGEST = 2**63 - 1
"""Largest whole number, as in a tensor of 64-bit integers."""

LONGEST = 10**12
"""Longest duration, in steps or epochs."""

_TYPES: dict[str, tuple[type, str]] = {
    "bool": (bool, "must be true or false"),
    "int": (int, "must be a whole number"),
    "float": (float, "must be a finite number"),
    "str": (str, "must be text"),
    "tuple": (tuple, "must be a list"),
    "dict": (dict, "must be a mapping"),
}
"""Type of each annotation, and the rule that an error gives."""

_ACCEPTED: dict[type, type] = {float: int, tuple: list, list: tuple}
"""Second type whose values count as values of a type."""


def is_a(value: object, kind: type) -> bool:
    """Whether a value is of a type; booleans are not numbers, and numbers are finite.

    >>> is_a(1, float), is_a([], tuple), is_a(1.0, int), is_a(True, int), is_a(float("nan"), float)
    (True, True, False, False, False)
    """
    if isinstance(value, bool) or kind is bool:
        return type(value) is kind
    if not isinstance(value, (kind, _ACCEPTED.get(kind, kind))):
        return False
    if isinstance(value, int):
        return kind is int or abs(value) <= LARGEST
    return not isinstance(value, float) or isfinite(value)


@lru_cache(maxsize=1024)  # each step of a training asks for a few
def steps_in(duration: int | str, steps_per_epoch: int = 0, steps: int = 0) -> int:
    """Optimizer steps in a duration: ``"500it"``, ``"2ep"`` (epochs), ``"5%"`` (of training).

    >>> steps_in("500it"), steps_in("2ep", steps_per_epoch=20), steps_in("5%", steps=600)
    (500, 40, 30)
    """
    match = DURATION.fullmatch(str(duration))
    assert match, duration
    if match[1]:
        return int(match[1])
    unit = steps_per_epoch if match[2] else steps / 100
    return round(float(match[2] or match[3]) * unit)


def check_length(name: str, duration: re.Match[str]) -> None:
    """Raise a SpecError for a duration that is too long to compute with."""
    if float(duration[1] or duration[2] or duration[3]) > LONGEST:
        raise SpecError(name, f"must be at most {LONGEST:,} steps or epochs", duration[0])


def _normalized(name: str, annotation: str, value: object) -> object:
    """The value in one form, so that 1 and 1.0, a list and a tuple give equal digests.

    Args:
        annotation: the field's annotation, such as ``float | None``.

    Raises:
        SpecError: the value is of another type, or not finite.
    """
    if value is None and annotation.endswith(" | None"):
        return None
    base = _base(annotation)
    if isinstance(value, list):
        value = tuple(value)
    elif isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # too large for a float; is_a refuses it
            if base == "float":
                value = float(value) + 0.0  # -0.0 becomes 0.0
            elif base == "int" and float(value).is_integer():
                value = int(value)  # type: ignore[call-overload]
    if base in _TYPES:
        expected, rule = _TYPES[base]
        if not is_a(value, expected):
            raise SpecError(name, rule, value)
    return value


def _base(annotation: str) -> str:
    """The annotation without its parameters and ``| None``."""
    return annotation.removesuffix(" | None").partition("[")[0]


@cache
def _annotations(spec: type) -> tuple[tuple[str, str, type | None], ...]:
    """Name and annotation of each field, and the type whose values need no normalizing."""
    rows = []
    for f in dataclasses.fields(spec):
        annotation = str(f.type)
        exact, _ = _TYPES.get(_base(annotation), (None, ""))
        rows.append((f.name, annotation, None if exact is float else exact))  # it may be infinite
    return tuple(rows)


class Checks:
    """Field checks shared by the specs; each raises a SpecError that names the field."""

    __slots__ = ("_json",)
    _json: str
    """The spec's JSON, cached by `spec.digest.spec_json`."""

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _normalize(self) -> None:
        """Convert every field to its normal form."""
        for name, annotation, exact in _annotations(type(self)):  # type: ignore[arg-type]
            value = getattr(self, name)
            if type(value) is not exact:  # spares time: a plan makes a hundred thousand specs
                self._set(name, _normalized(name, annotation, value))

    def _number(self, name: str, low: float, high: float | None = None) -> None:
        value = getattr(self, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or value < low or (high is not None and value > high):
            bound = f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}]"
            raise SpecError(name, f"must be {bound}", value)
        if value > LARGEST:
            raise SpecError(name, "must be less than 2^63", value)

    def _share(self, name: str, value: object) -> None:
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise SpecError(name, "must be a fraction in [0, 1)", value)

    def _one_of(self, name: str, literal: object) -> None:
        known = get_args(literal)
        if getattr(self, name) not in known:
            raise SpecError(name, "is not known", getattr(self, name), known)

    def _duration(
        self, name: str, *, positive: bool = False, share: bool = True, alternative: str = ""
    ) -> None:
        """Check a duration and write it with its unit.

        Args:
            positive: whether it must be above 0.
            share: whether it may be a share of training.
            alternative: a word that the field takes too, for the error.
        """
        value = getattr(self, name)
        if type(value) is int:
            value = f"{value}it"
        match = DURATION.fullmatch(value) if isinstance(value, str) else None
        if not match or (match[3] and not share):
            rule = "must be steps such as '500it' or epochs such as '2ep'"
            rule += " or a share of training such as '5%'" if share else ""
            rule += ", not negative" + (f", or {alternative!r}" if alternative else "")
            raise SpecError(name, rule, value)
        if match[3] and float(match[3]) > 100:
            raise SpecError(name, "must be at most 100% of training", value)
        check_length(name, match)
        if positive and steps_in(value, 10**9, 10**9) == 0:
            raise SpecError(name, "must be more than 0", value)
        self._set(name, value)


def check_pack(field: str, pack: object) -> None:
    """Check a number of jobs in a pack.

    Raises:
        SpecError: it is neither `auto` nor a whole number of at least 1.
    """
    if pack != "auto" and not (type(pack) is int and pack >= 1):
        raise SpecError(field, "must be auto or a whole number of at least 1", pack)
