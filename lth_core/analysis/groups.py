"""Records grouped by their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def group_by(items: Iterable[T], key: Callable[[T], object]) -> dict[str, list[T]]:
    """Items grouped by key, groups and items in the order of the input.

    A key may be a list or a dict, as values of axes are, so keys are compared by `repr`: 1, 1.0 and
    True are three keys.

    >>> group_by([3, 10, 4], lambda number: number > 9)
    {'False': [3, 4], 'True': [10]}
    """
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(repr(key(item)), []).append(item)
    return groups


def values_of(columns: Sequence[str]) -> Callable[[Mapping[str, Any]], list[Any]]:
    """A key for `group_by`: a record's values of some columns, None where it has none.

    >>> values_of(["level", "width"])({"seed": 0, "level": 2})
    [2, None]
    """
    return lambda record: [record.get(name) for name in columns]
