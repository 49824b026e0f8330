"""Fields of a spec to show: those that differ from their defaults, and a few more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from lth_core.spec.fields import Checks

ALWAYS = {
    "data": ["name"],
    "model": ["name"],
    "train": ["optimizer", "lr", "batch_size", "steps"],
    "prune": ["when", "score", "fraction"],
}
"""Fields of a spec's parts that are shown with their defaults too."""
ALWAYS_OF_SPEC = ["levels", "rewind"]
"""Fields of the spec itself that are shown with their defaults too."""


def settings(part: Checks, always: Sequence[str] = ()) -> dict[str, Any]:
    """Fields that decide the result and differ from their defaults, without parts.

    >>> from lth_core.spec import DataSpec
    >>> settings(DataSpec(fraction=0.5, root="elsewhere"), always=["name"])
    {'name': 'digits', 'fraction': 0.5}

    Args:
        always: names of fields that are given with their defaults too, but for one that another
            field replaces, as a budget the fraction.
    """
    given = {}
    for field in fields(part):  # type: ignore[arg-type]
        value, make = getattr(part, field.name), field.default_factory
        default = field.default if make is MISSING else make()
        decides = field.metadata.get("decides", True) and not isinstance(value, Checks)
        is_replaced = bool(getattr(part, field.metadata.get("replaced_by", ""), None))
        if decides and (value != default or (field.name in always and not is_replaced)):
            given[field.name] = value
    return given


def dotted_settings(spec: Checks) -> dict[str, Any]:
    """Settings of a whole spec by dotted field.

    >>> from lth_core.spec import TicketSpec
    >>> dotted_settings(TicketSpec(seed=2))["seed"], dotted_settings(TicketSpec())["train.lr"]
    (2, 0.0012)
    """
    given = settings(spec, ALWAYS_OF_SPEC)
    for field in fields(spec):  # type: ignore[arg-type]
        if isinstance(part := getattr(spec, field.name), Checks):
            chosen = settings(part, ALWAYS.get(field.name, ()))
            given |= {f"{field.name}.{name}": value for name, value in chosen.items()}
    return given


def setting_text(value: object) -> str:
    """A setting as text: numbers short, the items of a tuple with spaces.

    >>> setting_text(0.10000000000000001), setting_text((300, 100))
    ('0.1', '300 100')
    """
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
