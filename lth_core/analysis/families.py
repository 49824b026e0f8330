"""Variants of a study's methods: each method with each training under its mask, by family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lth_core.analysis.cells import Cell, Point, value_text
from lth_core.analysis.groups import distinct, group_by, key_of
from lth_core.analysis.verdict import Verdict, judge
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from lth_core.jobs.branches import SCRATCH

RETRAININGS = ("finetune", "lr_rewind", "trained", *SCRATCH)
"""Branches that are variants beside `ticket`: other trainings under the method's mask."""
FAMILIES = {
    "before": "Before training",
    "gates": "By training gates",
    "during": "During training",
    "after": "After training",
    "never": "Never trained",
}
"""Name of each value of `when`, in the order of legends and tables."""
LEARNED = "Mask learned, then trained"
"""Family of trainings under masks that were learned over weights that are never trained; the last
one in legends and tables."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A method with one training under its mask: a line of a figure, a row of a table."""

    method: str
    branch: str
    """`ticket`, or one of `RETRAININGS`."""
    when: str
    """The time of pruning: a key of `FAMILIES`."""

    @property
    def name(self) -> str:
        """`snip`, `one-shot finetune`."""
        return self.method if self.branch == "ticket" else f"{self.method} {self.branch}"

    @property
    def family(self) -> str:
        """Name of its group in legends and tables."""
        if self.when == "never" and self.branch != "ticket":
            return LEARNED
        return FAMILIES.get(self.when, self.when)

    def series(self, cell: Cell, key: str, scale: float = 1) -> list[Point]:
        """Values of a column in a cell, level by level, at densities above 0."""
        points = cell.of_method(self.method).series(self.branch, key, scale)
        return [point for point in points if point.density > 0]


def variants(records: Sequence[Record]) -> list[Variant]:
    """The recorded variants by family, each method before its retrainings."""
    branches = ("ticket", *RETRAININGS)
    recorded = {
        Variant(record["method"], record["branch"], record["when"]): None
        for record in records
        if record["branch"] in branches
    }
    methods = list(dict.fromkeys(variant.method for variant in recorded))
    order = [*FAMILIES.values(), LEARNED]

    def sort_key(variant: Variant) -> tuple[int, int, int]:
        family = order.index(variant.family) if variant.family in order else len(order)
        return family, methods.index(variant.method), branches.index(variant.branch)

    return sorted(recorded, key=sort_key)


def by_family(variants: Sequence[Variant]) -> dict[str, list[Variant]]:
    """Variants by the name of their family."""
    grouped: dict[str, list[Variant]] = {}
    for variant in variants:
        grouped.setdefault(variant.family, []).append(variant)
    return grouped


def variant_verdicts(
    cell: Cell, compared: Sequence[Variant], rule: VerdictRule
) -> dict[Variant, list[Verdict]]:
    """Verdicts of a cell by variant. Tickets are judged together, as in `verdicts`, and so are
    retrainings."""
    found = dict[Variant, list[Verdict]]()
    for together in group_by(compared, lambda variant: variant.branch == "ticket").values():
        judged = judge([_judged_records(cell, variant) for variant in together], [], rule)
        found |= zip(together, judged, strict=True)
    return found


def _judged_records(cell: Cell, variant: Variant) -> list[Record]:
    """The records on which a variant is judged: a retraining, as its ticket, against dense."""
    records = cell.of_method(variant.method).records
    baselines = ("dense", "reinit") if variant.branch == "ticket" else ("dense",)
    # A retraining is trained, also where its mask was learned over weights that are never trained.
    judged_as = {"branch": "ticket"} | ({} if variant.branch == "ticket" else {"when": "before"})
    own = [r | judged_as for r in records if r["branch"] == variant.branch]
    return own + [dict(r) for r in records if r["branch"] in baselines]


FORMS: dict[str, Callable[[Any], str]] = {
    "prune.scope": str,
    "prune.layer_fractions": lambda given: "given fractions" if given else "no given fractions",
    "prune.rounds": lambda rounds: f"rounds {value_text(rounds)}",
    "prune.schedule": lambda schedule: f"schedule {value_text(schedule)}",
}
"""Axes whose values may be forms of a method, and the function that names a form.

An axis with the same values in every method has no forms: it makes cells.
"""


def named_by_form(records: Sequence[Record], axes: Sequence[str]) -> list[dict[str, Any]]:
    """The records, with forms in the method's name where only some methods have several forms.

    The form of most methods is not named: `imp` and `imp layerwise`, where all others are global.

    Args:
        records, axes: as in `lth_core.analysis.cells.cells`.
    """
    named = [dict(record) for record in records]
    for axis in axes:
        if axis in FORMS:
            _name_forms(named, axis, FORMS[axis])
    return named


def _name_forms(
    records: Sequence[dict[str, Any]], axis: str, form_name: Callable[[Any], str]
) -> None:
    """Add forms to the methods' names, in place."""
    forms = {
        rows[0]["method"]: distinct(row.get(axis) for row in rows)
        for rows in group_by(records, lambda record: record["method"]).values()
    }
    if len({frozenset(values) for values in forms.values()}) < 2:
        return
    methods_with = Counter(form for values in forms.values() for form in values)
    names = {
        (method, form): _name_with_form(method, form, values, methods_with, form_name)
        for method, values in forms.items()
        for form in values
    }
    for record in records:
        record["method"] = names[record["method"], key_of(record.get(axis))]


def _name_with_form(
    method: str, form: str, values: Mapping[str, Any], methods_with: Counter[str],
    form_name: Callable[[Any], str],
) -> str:  # fmt: skip
    """The method's name with a form; without it where the form is the most frequent one.

    Args:
        form: key of one of ``values``, the axis values of the method.
        methods_with: number of methods with each form.
    """
    usual = max(values, key=lambda key: methods_with[key])
    if len(values) == 1 or form == usual:
        return method
    name = form_name(values[form])
    same_name = [key for key in values if key != usual and form_name(values[key]) == name]
    return f"{method} {name if len(same_name) == 1 else value_text(values[form])}"
