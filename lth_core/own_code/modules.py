"""Digests of a user's modules, each with all that it imports, if memory has what the files have."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from lth_core.own_code.alike import codes_of
from lth_core.own_code.compared import Related, other_name
from lth_core.own_code.scopes import changes, compiled, nested_codes
from lth_core.own_code.sources import user_sources

_imported: dict[str, tuple[object, str]] = {}
"""The module spec and the sha256 of the file of each module, as they were when first seen here."""


def module_digest(module: ModuleType) -> str:
    """sha256 of a module's source and of the sources of all modules that it imports.

    Modules of installed packages and of Python do not count. The digest of a module that imports no
    other is the sha256 of its file.

    Raises:
        ValueError: a file was edited after this process imported it, or a name of it was set.
    """
    return digest_of_modules(module.__name__)


def digest_of_modules(*names: str) -> str:
    """`module_digest` of several, by their names; one that is not imported yet counts too."""
    sources = user_sources(*names)
    contents = {name: path.read_bytes() for name, path in sources.items()}
    # A module may have put another object in its place.
    loaded = [name for name in contents if isinstance(sys.modules.get(name), ModuleType)]
    _refuse_edited(sources, {name: contents[name] for name in loaded})
    digests = {name: _sha256(content) for name, content in contents.items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return _sha256(repr(sorted(digests.items())).encode())


def _refuse_edited(sources: Mapping[str, Path], contents: Mapping[str, bytes]) -> None:
    """Compare each module in memory with its file: functions, classes, imports and constants."""
    related = Related(contents)
    for name, content in contents.items():
        module, path, digest = sys.modules[name], sources[name], _sha256(content)
        same, other = True, ""
        if type(module.__loader__) is SourceFileLoader:  # no code was transformed at the import
            same, other = _has_code(module, content), other_name(module, related)
        spec, recorded = module.__spec__, _imported.get(name)
        if recorded is None or recorded[0] is not spec:  # a reload makes a new spec
            recorded = _imported[name] = spec, digest if same and not other else ""
        if recorded[1] == digest and same and not other:
            continue
        attribute = other.rpartition(".")[2]
        where = [
            f"{sources[n]}:{c.line}" for n in contents if n != name
            for c in sorted(changes(contents[n]))
            if c.name == attribute and c.owner not in ("", "self")
        ]  # fmt: skip
        if where:
            raise ValueError(
                f"{other} of {path} was set, as {where[0]} does, so its value depends on what was "
                f"imported: write the value into {path.name}, or hand it over as an argument"
            )
        was_set = f", or {other} was set," if other else ","
        raise ValueError(
            f"{path} was edited after this process imported it{was_set} and the code in memory is "
            "not the file's: restart the process"
        )


def _has_code(module: ModuleType, source: bytes) -> bool:
    """Whether a module's functions are those of a source."""
    file = str(module.__file__)
    codes = set(nested_codes(compiled(source, file)))
    return bool(codes) and codes.issuperset(c for c in codes_of(module) if c.co_filename == file)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
