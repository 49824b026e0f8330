"""Ways to a sparse network, as figures and tables tell them apart: methods and retrainings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lth_core.analysis.cells import Cell, Point, shown
from lth_core.columns import Record

RETRAINED = ("finetune", "lr_rewind", "trained")
"""Branches that are ways of their own: other retrainings of what the method has found."""
FAMILIES = {
    "before": "Before training",
    "during": "During training",
    "after": "After training",
    "never": "Never trained",
}
"""What a record's `when` says, in the order of legends and tables."""


@dataclass(frozen=True, slots=True)
class Way:
    """A line of the figures and a row of the tables."""

    method: str
    branch: str
    """`ticket`, or one of those that retrain otherwise."""
    when: str
    """When it prunes: a key of `FAMILIES`."""

    @property
    def name(self) -> str:
        """`snip`, `one-shot finetune`."""
        return self.method if self.branch == "ticket" else f"{self.method} {self.branch}"

    def series(self, cell: Cell, key: str, scale: float = 1) -> list[Point]:
        """Values of a column in a cell, level by level, down to the last weight."""
        points = cell.found_by(self.method).series(self.branch, key, scale)
        return [point for point in points if point.density > 0]


def ways(records: Sequence[Record]) -> list[Way]:
    """The ways there are: by family, in the records' order, each method's retrainings after it."""
    branches = ("ticket", *RETRAINED)
    found = {
        Way(record["method"], record["branch"], record["when"]): None
        for record in records
        if record["branch"] in branches
    }
    methods, order = list(dict.fromkeys(way.method for way in found)), list(FAMILIES)

    def place(way: Way) -> tuple[int, int, int]:
        family = order.index(way.when) if way.when in FAMILIES else len(order)
        return family, methods.index(way.method), branches.index(way.branch)

    return sorted(found, key=place)


def families(found: Sequence[Way]) -> dict[str, list[Way]]:
    """Ways by the name of their family."""
    grouped: dict[str, list[Way]] = {}
    for way in found:
        grouped.setdefault(FAMILIES.get(way.when, way.when), []).append(way)
    return grouped


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
        records, axes: as in `lth_core.analysis.cells.cells`.
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
