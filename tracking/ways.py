"""Ways to a sparse network, as figures and tables tell them apart: methods and retrainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracking.cells import Cell, Point, Record

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
        """Its numbers in a cell, level by level, down to the last weight."""
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
