"""Checks of spec fields, each raising a SpecError with the field's name; and durations."""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress
from functools import cache
from math import isfinite
from numbers import Real
from typing import get_args

from lth_core.errors import SpecError

STRICT = {"extra": "forbid", "use_attribute_docstrings": True}
"""Pydantic's configuration of a spec: unknown fields are errors."""

DURATION = re.compile(r"(\d+)it|(\d+(?:\.\d+)?)ep|(\d+(?:\.\d+)?)%")

LARGEST = 2**63 - 1
"""Largest whole number: that of a tensor of 64-bit integers."""

LONGEST = 10**12
"""Longest duration, in steps or epochs."""

_KINDS: dict[str, tuple[type, str]] = {
    "bool": (bool, "must be true or false"),
    "int": (int, "must be a whole number"),
    "float": (float, "must be a finite number"),
    "str": (str, "must be text"),
    "tuple": (tuple, "must be a list"),
    "dict": (dict, "must be a mapping"),
}


_ALSO: dict[type, type] = {float: int, tuple: list, list: tuple}
"""The other type whose values JSON and Python count as a type's."""


def is_a(value: object, kind: type) -> bool:
    """Whether a value is of a plain type; true and false are no numbers, numbers are finite.

    >>> is_a(1, float), is_a([], tuple), is_a(1.0, int), is_a(True, int), is_a(float("nan"), float)
    (True, True, False, False, False)
    """
    if isinstance(value, bool) or kind is bool:
        return type(value) is kind
    if not isinstance(value, (kind, _ALSO.get(kind, kind))):
        return False
    if isinstance(value, int):
        return kind is int or abs(value) <= LARGEST
    return not isinstance(value, float) or isfinite(value)


def steps_in(duration: int | str, steps_per_epoch: int = 0, steps: int = 0) -> int:
    """Optimizer steps in a duration: ``"500it"``, ``"2ep"`` (epochs), ``"5%"`` (of training).

    >>> steps_in("500it"), steps_in("2ep", steps_per_epoch=20), steps_in("5%", steps=600)
    (500, 40, 30)
    """
    match = DURATION.fullmatch(str(duration))
    assert match, duration
    if match[1]:
        return int(match[1])
    share_of = steps_per_epoch if match[2] else steps / 100
    return round(float(match[2] or match[3]) * share_of)


def check_length(name: str, duration: re.Match[str]) -> None:
    """Raise a SpecError for a duration too long to be computed with."""
    if float(duration[1] or duration[2] or duration[3]) > LONGEST:
        raise SpecError(name, f"must be at most {LONGEST:,} steps or epochs", duration[0])


def _spelled(name: str, kind: str, value: object) -> object:
    """The value in one spelling, so that 1 and 1.0, a list and a tuple give equal digests.

    Args:
        kind: the field's annotation, such as ``float | None``.

    Raises:
        SpecError: the value is of another type, or not finite.
    """
    if value is None and kind.endswith(" | None"):
        return None
    kind = kind.removesuffix(" | None").partition("[")[0]
    if isinstance(value, list):
        value = tuple(value)
    elif isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # too large for a float: no number of the kind
            if kind == "float":
                value = float(value) + 0.0  # -0.0 is 0.0
            elif kind == "int" and float(value).is_integer():
                value = int(value)  # type: ignore[call-overload]
    if kind in _KINDS:
        expected, rule = _KINDS[kind]
        if not is_a(value, expected):
            raise SpecError(name, rule, value)
    return value


@cache
def _kinds_of(spec: type) -> tuple[tuple[str, str, type | None], ...]:
    """Name and annotation of each field, and the type whose values need no normalizing."""
    kinds = []
    for f in dataclasses.fields(spec):
        kind = str(f.type)
        usual, _ = _KINDS.get(kind.removesuffix(" | None").partition("[")[0], (None, ""))
        kinds.append((f.name, kind, None if usual is float else usual))  # it may be infinite
    return tuple(kinds)


class Checks:
    """Field checks shared by the specs. Each raises SpecError with the field's name."""

    __slots__ = ("_json",)
    _json: str
    """The spec's JSON, cached by `spec.digest.spec_json`."""

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _normalize(self) -> None:
        """Convert every field to its one spelling."""
        for name, kind, usual in _kinds_of(type(self)):  # type: ignore[arg-type]
            value = getattr(self, name)
            if type(value) is not usual:  # a plan makes a hundred thousand specs
                self._set(name, _spelled(name, kind, value))

    def _number(self, name: str, low: float, high: float | None = None, rule: str = "") -> None:
        value = getattr(self, name)
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= low
        if not ok or (high is not None and value > high):
            bound = (
                f"must be at least {low:g}" if high is None else f"must be in [{low:g}, {high:g}]"
            )
            raise SpecError(name, rule or bound, value)
        if value > LARGEST:
            raise SpecError(name, "must be less than 2^63", value)

    def _share(self, name: str, value: object) -> None:
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise SpecError(name, "must be a fraction in [0, 1)", value)

    def _one_of(self, name: str, literal: object) -> None:
        known = get_args(literal)
        if getattr(self, name) not in known:
            raise SpecError(name, "is not known", getattr(self, name), known)

    def _duration(self, name: str, *, positive: bool = False, share: bool = True) -> None:
        value = getattr(self, name)
        if type(value) is int:
            value = f"{value}it"
        match = DURATION.fullmatch(value) if isinstance(value, str) else None
        if not match or (match[3] and not share):
            rule = "must be steps such as '500it' or epochs such as '2ep'"
            rule += " or a share of training such as '5%'" if share else ""
            raise SpecError(name, f"{rule}, not negative", value)
        if match[3] and float(match[3]) > 100:
            raise SpecError(name, "must be at most 100% of training", value)
        check_length(name, match)
        if positive and steps_in(value, 10**9, 10**9) == 0:
            raise SpecError(name, "must be more than 0", value)
        self._set(name, value)
