"""Cells of a study: the product of its axes' values."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from math import exp, log, prod, sqrt
from typing import Any

from lth_core.analysis.groups import distinct, key_of
from lth_core.errors import SpecError
from lth_core.resolve import Pins, resolve
from lth_core.spec import TicketSpec
from lth_core.ticket import Ticket
from sweeps.studies.reader import (
    SPEC_PARTS,
    get_field,
    parse_part,
    parse_spec,
    set_field,
    spec_fields,
    spec_values,
)
from sweeps.studies.schema import Axis, Range, Study

Fields = dict[str, Any]
"""Dotted fields of a spec and their values."""

MOST_COMBINATIONS = 1_000_000
"""Largest number of combinations of a grid: more would fill the memory."""


def combinations(study: Study) -> list[Fields]:
    """Every combination of the axes' values, the last axis varying fastest.

    Raises:
        SpecError: an axis names no field, or there are too many combinations.
    """
    return list(_combinations(_points_by_axis(study)))


def variants(study: Study, prefix: str) -> Iterator[Fields]:
    """Every combination of values that a study's trials have for a field or for a part's fields.

    Args:
        prefix: ``model.name``, or ``data`` for all of its fields.

    Raises:
        SpecError: as `combinations` and `samples`.
    """
    sources = _points_by_axis(study)
    if study.search.algorithm == "random":
        sources.insert(0, list(samples(study)))
    within = (
        [{f: v for f, v in point.items() if f"{f}.".startswith(f"{prefix}.")} for point in points]
        for points in sources
    )
    return _combinations([list(distinct(points).values()) for points in within])


def check_axes(study: Study) -> None:
    """Check that no axis overwrites a field of the search space or of an axis before it.

    Raises:
        SpecError: one does, or names no field.
    """
    setters = dict.fromkeys(study.search.space, "search.space")
    for name, points in zip(study.axes, _points_by_axis(study), strict=True):
        for field, earlier in product(points[0], setters):
            if f"{earlier}.".startswith(f"{field}."):
                rule = f"must not overwrite {earlier} of {setters[earlier]}"
                raise SpecError(f"axes.{name}", rule, field)
        setters |= dict.fromkeys(points[0], f"axes.{name}")


def _points_by_axis(study: Study) -> list[list[Fields]]:
    base = base_values(study)
    return [_points(f"axes.{name}", name, axis, base) for name, axis in study.axes.items()]


def _combinations(points_by_axis: list[list[Fields]]) -> Iterator[Fields]:
    if (size := prod(map(len, points_by_axis))) > MOST_COMBINATIONS:
        raise SpecError("axes", f"must have at most {MOST_COMBINATIONS:,} combinations", size)
    for combination in product(*points_by_axis):
        yield {field: value for point in combination for field, value in point.items()}


def axis_fields(study: Study) -> list[str]:
    """Dotted fields that differ between a study's trials, in the study's order."""
    fields = [field for points in _points_by_axis(study) for field in points[0]]
    return list(dict.fromkeys([*fields, *study.search.space]))


def spec_of(
    base: Mapping[str, Any],
    fields: Fields,
    pins: Pins | None = None,
    tickets: Mapping[str, Ticket] | None = None,
) -> TicketSpec:
    """Spec from the base spec's plain values with some fields set, resolved by pins and tickets.

    Raises:
        SpecError: a value does not fit its field; names the field as an axis.
        DataError: data to be pinned are absent or damaged.
    """
    values = copy.deepcopy(dict(base))
    for field, value in fields.items():
        set_field(values, field, value)
    try:
        return resolve(parse_spec(values), pins, tickets)
    except SpecError as error:
        by_axis = any(error.field.startswith(field) for field in fields)
        raise error.under("axes" if by_axis else "base") from None


class SpecReader:
    """Reader of the specs of a study's trials; parts that several trials share are read once.

    Args:
        base: the base spec's plain values.
        pins, tickets: as `resolve` takes them.
    """

    def __init__(
        self,
        base: Mapping[str, Any],
        pins: Pins | None = None,
        tickets: Mapping[str, Ticket] | None = None,
    ) -> None:
        self._base, self._pins, self._tickets = base, pins, tickets
        self._parts: dict[str, object] = {}
        self._replicates: dict[str, TicketSpec] = {}

    def spec(self, fields: Fields) -> TicketSpec:
        """The result of `spec_of`, and its errors."""
        try:
            if "seed" not in fields:
                return self._resolved(fields)
            # Only the seed differs between replicates: they are resolved once.
            others = {field: value for field, value in fields.items() if field != "seed"}
            key = key_of(others)
            if key not in self._replicates:
                self._replicates[key] = self._resolved(others)
            return replace(self._replicates[key], seed=fields["seed"])
        except SpecError:
            return spec_of(
                self._base, fields, self._pins, self._tickets
            )  # its error names the axis

    def _resolved(self, fields: Fields) -> TicketSpec:
        changes_of: dict[str, Fields] = {part: {} for part in SPEC_PARTS}
        values: dict[str, Any] = {}
        for field, value in fields.items():
            part, _, rest = field.partition(".")
            if part in changes_of and rest:
                changes_of[part][rest] = value
            else:
                values[field] = value
        parts = {part: self.part(part, changes) for part, changes in changes_of.items()}
        spec = parse_spec({**self._base, **parts, **values})
        return resolve(spec, self._pins, self._tickets)

    def part(self, part: str, changes: Fields) -> object:
        """A part of the base spec with some of its fields set, not resolved.

        Raises:
            SpecError: a value does not fit its field.
        """
        key = key_of([part, changes])
        if key not in self._parts:
            values = copy.deepcopy(self._base[part])
            for field, value in changes.items():
                set_field(values, field, value)
            self._parts[key] = parse_part(part, values)
        return self._parts[key]


def base_values(study: Study) -> dict[str, Any]:
    """The base spec as plain values."""
    return spec_values(study.base)


def samples(study: Study) -> Iterator[Fields]:
    """Samples of the space for random search; each call yields equal ones."""
    stream = random.Random(study.search.seed)
    check_space(study)
    for _ in range(study.search.trials):
        yield {name: _draw(axis, stream) for name, axis in study.search.space.items()}


def check_space(study: Study) -> None:
    """Check the search space.

    Raises:
        SpecError: the space is empty, or names an unknown field.
    """
    if not study.search.space:
        rule = f"must name what {study.search.algorithm} search samples"
        raise SpecError("search.space", rule, {}, spec_fields())
    for name, axis in study.search.space.items():
        _check_field(f"search.space.{name}", name)
        if not isinstance(axis, Range) and not axis:  # a range always has a value: low
            raise SpecError(f"search.space.{name}", "must have a value", axis)


BETWEEN = sqrt(0.3)
"""Share of a range at which `extremes` tries a value between its ends."""


def extremes(axis: Axis) -> list[Any]:
    """Values that a sample may have: all choices, or the ends of a range and one between them."""
    if not isinstance(axis, Range):
        return list(axis)
    if axis.count or axis.step:
        values = axis.values()
        return [values[0], values[-1], values[len(values) // 2]]
    # Between the ends no draw is a whole number.
    between = axis.low * (axis.high / axis.low) ** BETWEEN if axis.log else (
        axis.low + (axis.high - axis.low) * BETWEEN)  # fmt: skip
    return [axis.low, axis.high, between]


def _draw(axis: Axis, stream: random.Random) -> Any:
    if not isinstance(axis, Range):
        return stream.choice(axis)
    if axis.count or axis.step:
        return stream.choice(axis.values())
    if axis.log:
        return exp(stream.uniform(log(axis.low), log(axis.high)))
    return stream.uniform(axis.low, axis.high)


def _points(path: str, name: str, axis: Axis, base: Mapping[str, Any]) -> list[Fields]:
    """Fields that each value of an axis sets, at least one; omitted fields are as in the base."""
    try:
        values: list[Any] = axis.values() if isinstance(axis, Range) else axis
    except SpecError as error:
        raise SpecError(path, error.rule, error.got) from None
    if not values:
        raise SpecError(path, "must have at least one value", values)
    mappings = [value for value in values if isinstance(value, dict)]
    if mappings and name not in spec_fields():
        if len(mappings) < len(values):
            raise SpecError(path, "must have only mappings of fields", values)
        fields = list(dict.fromkeys(field for value in mappings for field in value))
        for field in fields:
            _check_field(path, field)
        return [{f: v[f] if f in v else get_field(base, f, path) for f in fields} for v in mappings]
    _check_field(path, name)
    return [{name: value} for value in values]


def _check_field(path: str, field: str) -> None:
    known = spec_fields()
    parents = {name.rpartition(".")[0] for name in known}
    # layer_fractions is a mapping: its entries are fields too. A key in a file may be a number.
    if field not in known and not str(field).startswith("prune.layer_fractions."):
        hint = [n for n in known if field in n.split(".")] if field not in parents else []
        raise SpecError(path, "is not a field of the spec", field, hint or known)
