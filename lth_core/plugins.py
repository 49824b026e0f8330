"""``package.module:name``: a user's own dataset, model or score, named in a study file."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lth_core.errors import LthError, SpecError, exception_text

_MODULE = re.compile(r"\w+(\.\w+)*")


def load_factory(field: str, name: str) -> Callable[..., Any]:
    """The callable that a name points to. A study file can cause no more than its import and call;
    any error in it but an LthError becomes a SpecError.

    Raises:
        SpecError: no such module, no such name in it, or not callable.
    """
    module_name, _, attribute = name.partition(":")
    if not _MODULE.fullmatch(module_name):  # a leading dot would be a relative import
        raise SpecError(field, "must be package.module:factory", name)
    with blamed(field, "cannot be imported", name):
        module = importlib.import_module(module_name)
        factory = getattr(module, attribute, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise SpecError(field, f"is not a callable of {module_name}", name, known)

    def call(*given: Any) -> Any:
        with blamed(field, "fails when it is called", name):
            return factory(*given)

    return call


@contextmanager
def blamed(field: str, rule: str, name: str) -> Iterator[None]:
    """Report any exception in the block as an error of a field's value.

    Raises:
        SpecError: an exception was raised; it is named, and is the cause.
    """
    try:
        yield
    except LthError:
        raise
    # A user's code may raise anything, and `sys:exit` is a name too.
    except (Exception, SystemExit) as error:
        raise SpecError(field, f"{rule} ({exception_text(error)})", name) from error


def source_fingerprint(field: str, name: str) -> str:
    """sha256 of the source file of a factory's module, so that edited code is another result."""
    load_factory(field, name)
    path = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
