"""What a study's methods are called: told apart where it holds one in several forms."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracking.cells import Record, shown

FORMS: dict[str, Callable[[Any], str]] = {
    "prune.scope": str,
    "prune.layer_fractions": lambda given: "given fractions" if given else "no given fractions",
    "prune.rounds": lambda rounds: f"rounds {shown(rounds)}",
    "prune.schedule": lambda schedule: f"schedule {shown(schedule)}",
}
"""Axes that a method's name leaves open, and may set two of its forms apart: what a form is called.

An axis that every method goes through alike is no form of any: it makes cells.
"""


def named_apart(records: Sequence[Record], axes: Sequence[str]) -> list[dict[str, Any]]:
    """The records; where some methods alone have several forms, their names say which.

    The form that most methods have goes without saying: `imp` and `imp layerwise`, where all else
    is global.

    Args:
        records, axes: as in `tracking.cells.cells`.
    """
    named = [dict(record) for record in records]
    for axis in axes:
        if axis in FORMS:
            _name_forms(named, axis, FORMS[axis])
    return named


def _name_forms(records: Sequence[dict[str, Any]], axis: str, called: Callable[[Any], str]) -> None:
    forms: dict[str, dict[str, Any]] = defaultdict(dict)
    for record in records:
        forms[record["method"]][repr(record.get(axis))] = record.get(axis)
    if len({frozenset(found) for found in forms.values()}) < 2:
        return
    methods_with = Counter(form for found in forms.values() for form in found)
    names = {
        (method, form): _name(method, form, found, methods_with, called)
        for method, found in forms.items()
        for form in found
    }
    for record in records:
        record["method"] = names[record["method"], repr(record.get(axis))]


def _name(
    method: str, form: str, found: Mapping[str, Any], methods_with: Counter[str],
    called: Callable[[Any], str],
) -> str:  # fmt: skip
    usual = max(found, key=lambda each: methods_with[each])
    if len(found) == 1 or form == usual:
        return method
    name = called(found[form])
    alike = [each for each in found if each != usual and called(found[each]) == name]
    return f"{method} {name if len(alike) == 1 else shown(found[form])}"
