"""Values compared as keys, and records grouped by their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lth_core.columns import Record

T = TypeVar("T")


def key_of(value: object) -> str:
    """A value's key in groups: its `repr`, because values of axes may be lists or dicts.

    1, 1.0 and True have three keys.
    """
    return repr(value)


def distinct(values: Iterable[T]) -> dict[str, T]:
    """Distinct values by their `key_of`, in the order of the input.

    >>> distinct([2, [1], 2, 2.0])
    {'2': 2, '[1]': [1], '2.0': 2.0}
    """
    return {key_of(value): value for value in values}


def group_by(items: Iterable[T], key: Callable[[T], object]) -> dict[str, list[T]]:
    """Items grouped by key (compared by `key_of`), groups and items in the order of the input.

    >>> group_by([3, 10, 4], lambda number: number > 9)
    {'False': [3, 4], 'True': [10]}
    """
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key_of(key(item)), []).append(item)
    return groups


def values_of(columns: Sequence[str]) -> Callable[[Mapping[str, Any]], list[Any]]:
    """A key for `group_by`: the values of some columns, None where a mapping has none.

    >>> values_of(["level", "width"])({"seed": 0, "level": 2})
    [2, None]
    """
    return lambda mapping: [mapping.get(name) for name in columns]


def methods(records: Sequence[Record]) -> list[str]:
    """Names of the recorded methods, in the records' order."""
    return list(dict.fromkeys(record["method"] for record in records))


def free_axes(records: Sequence[Record], axes: Sequence[str]) -> list[str]:
    """Axes, without the seed, that the method does not determine: one method has several values."""
    by_method = group_by(records, lambda record: record["method"])
    return [
        axis
        for axis in axes
        if axis != "seed"
        and any(len(distinct(r.get(axis) for r in rows)) > 1 for rows in by_method.values())
    ]
