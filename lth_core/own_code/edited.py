"""Whether the code of modules in memory is still that of their files."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from lth_core.own_code.compared import codes_of, compiled, other_name
from lth_core.own_code.scopes import Change, changes

_imported: dict[str, tuple[object, str]] = {}
"""The module spec and the sha256 of the file of each module, as they were when first seen here."""


def refuse_edited(sources: Mapping[str, Path]) -> None:
    """Check that this process runs the code that the files of modules have now.

    Each module that is imported is compared with its file: its functions, classes, imports and
    constants.

    Args:
        sources: files of modules that belong together, by the module's name.

    Raises:
        ValueError: one runs other code, or a name of it was set.
    """
    contents = {name: path.read_bytes() for name, path in sources.items() if name in sys.modules}
    changed = {name: changes(content) for name, content in contents.items()}
    for name, content in contents.items():
        module, path = sys.modules[name], sources[name]
        digest = hashlib.sha256(content).hexdigest()
        same, other = True, ""
        if type(module.__loader__) is SourceFileLoader:  # no code was transformed at the import
            same = _has_code(module, content)
            other = other_name(module, content, changed[name], changed)
        spec, recorded = module.__spec__, _imported.get(name)
        if recorded is None or recorded[0] is not spec:  # a reload makes a new spec
            recorded = _imported[name] = spec, digest if same and not other else ""
        if recorded[1] == digest and same and not other:
            continue
        setting = {n: _lines_setting(other, changed[n]) for n in contents if n != name}
        where = [f"{sources[n]}:{line}" for n, lines in setting.items() for line in lines]
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


def _lines_setting(name: str, changed: frozenset[Change]) -> list[int]:
    """Lines that set an attribute of another module, or of a class of it."""
    attribute = name.rpartition(".")[2]
    return sorted(c.line for c in changed if c.name == attribute and c.owner not in ("", "self"))


def _has_code(module: ModuleType, source: bytes) -> bool:
    """Whether a module's functions are those of a source."""
    file = str(module.__file__)
    codes = compiled(source, file)
    return codes is not None and all(
        code in codes for code in codes_of(module) if code.co_filename == file
    )
