"""Digests of what a study names: of a factory's modules, or of a function of a script."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from lth_core.own_code.modules import digest_of_modules
from lth_core.own_code.sources import MAIN, user_file
from lth_core.own_code.values import function_digest, is_of_file


def factory_digest(factory: Callable[..., Any], module: ModuleType) -> str:
    """sha256 of a factory's code: of its modules with all that they import, or of the function.

    In an installed package, only the named module counts. In `__main__` the function counts, of a
    script too: the script may set a name that it uses, or define it again.

    Args:
        module: the module that a study names; another may define the factory.

    Raises:
        ValueError: a file was edited after this process imported it, or a name of it was set.
        TypeError: a function of `__main__` uses a value whose content is not known.
    """
    if user_file(module.__name__) and is_of_file(factory, module):
        defined = factory.func if isinstance(factory, partial) else factory
        return digest_of_modules(module.__name__, str(getattr(defined, "__module__", MAIN)))
    file = getattr(module, "__file__", None)
    if file and module.__name__ != MAIN:  # a module of an installed package
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return function_digest(factory)
