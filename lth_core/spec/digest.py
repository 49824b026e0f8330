"""Digests: sha256 over canonical JSON of all that decides a result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from lth_core.spec.fields import Checks

SCHEMA = 4
"""Raised whenever the same spec begins to mean another computation."""

WHERE: dict[str, Any] = {"where": True}
"""Metadata of a field that says where things lie on this machine, not what they are."""


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: object) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN."""
    if value is None or type(value) is int:  # most of what recipes say, and slow to encode
        return "null" if value is None else repr(value)
    return _ENCODER.encode(value)


def sha256(value: object) -> str:
    """Hex digest of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_of(kind: str, parts: Mapping[str, str]) -> str:
    """Hex digest of a kind of thing and its parts, each as its canonical JSON: the same as `sha256`
    of the whole, with no part spelled again for every thing that it is in."""
    every = {"schema": canonical_json(SCHEMA), "kind": canonical_json(kind), **parts}
    return hashlib.sha256(_joined(every).encode()).hexdigest()


@cache
def deciding(kind: type) -> tuple[str, ...]:
    """Names of a dataclass's fields that decide the result."""
    return tuple(f.name for f in dataclasses.fields(kind) if not f.metadata.get("where"))


def said(value: object) -> str:
    """What a value says, as canonical JSON. A spec keeps its own: it never changes."""
    if not isinstance(value, Checks):
        return canonical_json(describe(value))
    try:
        return value._said
    except AttributeError:
        names = deciding(type(value))  # type: ignore[arg-type]
        text = _joined({name: said(getattr(value, name)) for name in names})
        value._set("_said", text)
        return text


def _joined(parts: Mapping[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"


def describe(spec: object) -> Any:
    """What a spec says, as JSON-able values: every field that decides the result."""
    if spec is None or isinstance(spec, (str, int, float)):
        return spec
    if dataclasses.is_dataclass(spec) and not isinstance(spec, type):
        return {name: describe(getattr(spec, name)) for name in deciding(type(spec))}
    if isinstance(spec, dict):
        return {str(key): describe(value) for key, value in spec.items()}
    if isinstance(spec, (tuple, list)):
        return [describe(value) for value in spec]
    return spec
