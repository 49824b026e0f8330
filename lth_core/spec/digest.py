"""Digests: sha256 over canonical JSON of everything that decides a result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, get_args, get_type_hints

from lth_core.spec.fields import Checks

SCHEMA = 7
"""Version of specs; raised when an unchanged spec begins to mean another computation."""

NOT_DECIDING: dict[str, Any] = {"decides": False}
"""Metadata of a field that does not decide the result, such as a folder; not in the digest."""


def added_later(*, implied: object) -> dict[str, Any]:
    """Metadata of a field that an older version of the code did not have.

    A spec whose field has the implied value keeps the digest that it had before, so stored results
    stay valid.

    Args:
        implied: the value at which today's code computes what the older code did; it may differ
            from the default.
    """
    return {"implied": implied}


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: object) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN."""
    if value is None or type(value) is int:  # these are most parts, and the encoder is slow
        return "null" if value is None else repr(value)
    return _ENCODER.encode(value)


def sha256(value: object) -> str:
    """Hex digest of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_of(kind: str, parts: Mapping[str, str]) -> str:
    """Hex digest of a kind and its parts, each as canonical JSON.

    It equals `sha256` of the whole, but a part that several specs share is encoded once.
    """
    encoded = {"schema": canonical_json(SCHEMA), "kind": canonical_json(kind), **parts}
    return hashlib.sha256(_joined(encoded).encode()).hexdigest()


def deciding(spec: object) -> tuple[str, ...]:
    """Names of a dataclass's fields that decide the result and enter its digest."""
    names, implied = _deciding(type(spec))  # type: ignore[arg-type]
    if not implied:
        return names
    return tuple(
        name for name in names if name not in implied or getattr(spec, name) != implied[name]
    )


@cache
def _deciding(cls: type) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names of the fields that decide the result, and the implied values of those added later."""
    deciding = [f for f in fields(cls) if f.metadata.get("decides", True)]
    implied = {f.name: f.metadata["implied"] for f in deciding if "implied" in f.metadata}
    return tuple(f.name for f in deciding), implied


def with_implied(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a stored spec, completed with the implied values of fields added later.

    Args:
        cls: the spec's class; the values of its parts are completed too.
    """
    hints, completed = _hints(cls), dict(values)
    for name, value in values.items():
        if isinstance(value, Mapping) and (part := _part(hints.get(name), value)):
            completed[name] = with_implied(part, value)
    _, implied = _deciding(cls)
    return {**implied, **completed}


def _part(hint: Any, values: Mapping[str, Any]) -> type | None:
    """Dataclass of a part's values; of a union, the member with the ``when`` of the values."""
    classes = [cls for cls in get_args(hint) or (hint,) if dataclasses.is_dataclass(cls)]
    for cls in classes:
        if any(f.name == "when" and f.default == values.get("when") for f in fields(cls)):
            return cls  # type: ignore[return-value]
    return classes[0] if classes else None  # type: ignore[return-value]


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def spec_json(value: object) -> str:
    """Canonical JSON of a value's deciding fields; cached in a spec, which never changes."""
    if not isinstance(value, Checks):
        return canonical_json(describe(value))
    try:
        return value._json
    except AttributeError:
        text = _joined({name: spec_json(getattr(value, name)) for name in deciding(value)})
        value._set("_json", text)
        return text


def _joined(parts: Mapping[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"


def describe(spec: object) -> Any:
    """JSON-able values of the fields of a spec that decide the result."""
    if spec is None or isinstance(spec, (str, int, float)):
        return spec
    if dataclasses.is_dataclass(spec) and not isinstance(spec, type):
        return {name: describe(getattr(spec, name)) for name in deciding(spec)}
    if isinstance(spec, dict):
        return {str(key): describe(value) for key, value in spec.items()}
    if isinstance(spec, (tuple, list)):
        return [describe(value) for value in spec]
    return spec
