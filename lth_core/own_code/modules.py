"""Digests of a user's modules, each with all that it imports."""

from __future__ import annotations

import hashlib
from types import ModuleType

from lth_core.own_code.edited import refuse_edited
from lth_core.own_code.sources import user_sources


def module_digest(module: ModuleType) -> str:
    """sha256 of a module's source and of the sources of all modules that it imports.

    Modules of installed packages and of Python do not count. The digest of a module that imports no
    other is the sha256 of its file.

    Raises:
        ValueError: as `refuse_edited`.
    """
    return digest_of_modules(module.__name__)


def digest_of_modules(*names: str) -> str:
    """`module_digest` of several, by their names; one that is not imported yet counts too."""
    sources = user_sources(*names)
    refuse_edited(sources)
    digests = {name: _sha256(path.read_bytes()) for name, path in sources.items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return _sha256(repr(sorted(digests.items())).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
