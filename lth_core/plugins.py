"""``package.module:name``: a user's own dataset, model or score, named in a study file."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from lth_core.errors import LthError, SpecError, exception_text
from lth_core.own_code import factory_digest

_MODULE = re.compile(r"\w+(\.\w+)*")


def load_factory(field: str, name: str) -> Callable[..., Any]:
    """The callable of a name. A study file can cause no more than its import and call.

    Raises:
        SpecError: the module cannot be imported, or has no callable of that name. A call raises it
            too, in place of any error but an LthError.
    """
    factory, _ = _find(field, name)

    def call(*arguments: Any) -> Any:
        with errors_as_spec_errors(field, "fails when it is called", name):
            return factory(*arguments)

    return call


def _find(field: str, name: str) -> tuple[Callable[..., Any], ModuleType]:
    """The callable of a name, and the module that was imported for it."""
    module_name, _, attribute = name.partition(":")
    if not _MODULE.fullmatch(module_name):  # a leading dot would be a relative import
        raise SpecError(field, "must be package.module:factory", name)
    with errors_as_spec_errors(field, "cannot be imported", name):
        module = importlib.import_module(module_name)
        factory = getattr(module, attribute, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise SpecError(field, f"is not a callable of {module_name}", name, known)
    return factory, module


@contextmanager
def errors_as_spec_errors(field: str, rule: str, name: object) -> Iterator[None]:
    """Turn an exception in the block into a SpecError of a field; an LthError stays as it is.

    Raises:
        SpecError: it names the exception, and has it as its cause.
    """
    try:
        yield
    except LthError:
        raise
    # A user's code may raise anything, and `sys:exit` is a name too.
    except (Exception, SystemExit) as error:
        raise SpecError(field, f"{rule} ({exception_text(error)})", name) from error


def source_fingerprint(field: str, name: str) -> str:
    """sha256 of a factory's code with all of the user's code that it imports.

    So edited code is another result. A function without a file, as in a notebook, is known by its
    bytecode and what that uses.

    Raises:
        SpecError: as `load_factory`; a file was edited after its import; the content of a value
            that a function without a file uses is not known.
    """
    factory, module = _find(field, name)
    try:
        return factory_digest(factory, module)
    except (TypeError, ValueError) as error:
        raise SpecError(field, f"must have code whose content is known ({error})", name) from None
