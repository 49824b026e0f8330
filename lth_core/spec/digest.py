"""Digests: sha256 over canonical JSON of all that decides a result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

SCHEMA = 2
"""Raised whenever the same spec begins to mean another computation."""

WHERE: dict[str, Any] = {"where": True}
"""Metadata of a field that says where things lie on this machine, not what they are."""


def canonical_json(value: object) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(value: object) -> str:
    """Hex digest of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def describe(spec: object) -> Any:
    """What a spec says, as JSON-able values: every field that decides the result."""
    if dataclasses.is_dataclass(spec) and not isinstance(spec, type):
        return {
            f.name: describe(getattr(spec, f.name))
            for f in dataclasses.fields(spec)
            if not f.metadata.get("where")
        }
    if isinstance(spec, dict):
        return {str(key): describe(value) for key, value in spec.items()}
    if isinstance(spec, (tuple, list)):
        return [describe(value) for value in spec]
    return spec
