"""``package.module:name``: a user's own dataset, model or score, named in a study file."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lth_core.errors import SpecError


def load_factory(field: str, name: str) -> Callable[..., Any]:
    """The callable a name points to. Importing is all that a study file can make happen.

    Raises:
        SpecError: no such module, no such name in it, or not callable.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SpecError(field, f"cannot be imported ({error})", name) from None
    except ValueError:
        raise SpecError(field, "must be package.module:factory", name) from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise SpecError(field, f"is not a callable of {module_name}", name, known)
    return factory  # type: ignore[no-any-return]


def source_fingerprint(field: str, name: str) -> str:
    """sha256 of the source file of a factory's module, so that edited code is another result."""
    load_factory(field, name)
    path = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
