"""Files of a user's modules: of a module and of all that it imports, however deep."""

from __future__ import annotations

import ast
import functools
import importlib.util
import pkgutil
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from lth_core.own_code.scopes import bindings, compiled, parsed

OURS = {"lth_core", "sweeps", "tracking"}
"""Packages whose code enters digests only as `SCHEMA`, even in an editable installation."""
MAIN = "__main__"
_INSTALLED = {
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
} | {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
_FOLDERS_OF_PACKAGES = {"site-packages", "dist-packages"}


def user_sources(*modules: str) -> dict[str, Path]:
    """File of each module and of each module that it imports, however deep, by the module's name.

    Imports count wherever they stand in a source, in functions too. Those by `import_module` count
    where the argument is a literal; where it only begins with a package, all modules of that do. A
    package that imports other names, or has a function `__getattr__`, counts with all modules in
    it.
    """
    sources = dict[str, Path]()
    pending = list(modules)
    while pending:
        name = pending.pop()
        path = user_file(name)
        if name in sources or path is None:
            continue
        sources[name] = path
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        imported, packages = _imported_names(path.read_bytes(), package)
        pending += with_parents(imported)
        for each in filter(None, packages):
            pending += [*with_parents([each]), *_modules_in(each)]
    return sources


def with_parents(names: Iterable[str]) -> Iterator[str]:
    """Names of modules, each after those of the packages above it."""
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


@functools.lru_cache(maxsize=1024)
def _imported_names(source: bytes, package: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that a source imports, and packages of which it may import any module.

    Some names are attributes of modules, not modules.
    """
    names, packages, importers = list[str](), list[str](), {"import_module", "__import__"}
    for node in ast.walk(parsed(source)):
        match node:
            case ast.Import(names=aliases):
                names += [alias.name for alias in aliases]
            case ast.ImportFrom(module=base, names=aliases, level=level):
                parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*parents, *([base] if base else [])])
                names += [base, *(f"{base}.{alias.name}" for alias in aliases if base)]
                importers |= {a.asname for a in aliases if a.asname and a.name == "import_module"}
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)):
                if called in importers:
                    literal = _imported_literal(node, package)
                    names.append(literal or "")
                    packages += [_beginning(node) or package] if literal is None else []
    if "__getattr__" in bindings(compiled(source, "<source>")):
        packages.append(package)
    return tuple(filter(None, names)), tuple(packages)


def _beginning(call: ast.Call) -> str:
    """Package with which the name begins that a call imports: `f"nets.{name}"`; or empty."""
    match call.args[:1]:
        case [ast.JoinedStr(values=[ast.Constant(value=str(start)), *_])] | [
            ast.BinOp(left=ast.Constant(value=str(start)), op=ast.Add())
        ]:
            return "" if start[:1] == "." else start.rpartition(".")[0]
    return ""


def _imported_literal(call: ast.Call, package: str) -> str | None:
    """Name of the module that a call of `import_module` imports; None where it is not known."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    given |= dict(zip(("name", "package"), call.args, strict=False))
    name, anchor = (
        each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else None
        for each in (given.get("name"), given.get("package"))
    )
    try:
        return name and importlib.util.resolve_name(name, anchor or package)
    except ImportError:  # the import would fail
        return ""


def _modules_in(package: str) -> list[str]:
    """Names of all modules in a package's folders, also in those below."""
    names, pending = list[str](), [package]
    while pending:
        above = pending.pop()
        for _, name, is_package in pkgutil.iter_modules(_folders(above)):
            names.append(f"{above}.{name}")
            pending += [f"{above}.{name}"] if is_package else []
    return names


def user_file(name: str) -> Path | None:
    """File of a user's module; None for `__main__` and modules of Python and installed packages.

    Nothing is imported to find it.
    """
    top = name.partition(".")[0]
    if name == MAIN or top in OURS or top in sys.builtin_module_names:
        return None
    if name != top and not _is_user_package(top):
        return None
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:  # not imported, or another object is in the module's place
        spec = _find_spec(name)
        file = spec.origin if spec and spec.has_location else None
    path = Path(file).resolve() if file else None
    return path if path and path.is_file() and not is_installed(path) else None


def _find_spec(name: str) -> ModuleSpec | None:
    """Where a module would be loaded from. The packages above it are not imported."""
    above = name.rpartition(".")[0]
    try:
        if above:
            return PathFinder.find_spec(name, _folders(above))
        if name in sys.modules:
            return PathFinder.find_spec(name)
        return importlib.util.find_spec(name)  # by the finders of editable installations too
    except (ImportError, ValueError, AttributeError):  # an attribute of a module
        return None


def _folders(package: str) -> list[str]:
    """Folders of a package; none of a module."""
    if package in sys.modules:
        return list(getattr(sys.modules[package], "__path__", ()))
    spec = _find_spec(package)
    return list((spec and spec.submodule_search_locations) or ())


def _is_user_package(package: str) -> bool:
    """Whether a package lies outside of the folders of installed packages."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return package in sys.modules
    places = [spec.origin] if spec and spec.has_location and spec.origin else []
    places += list((spec and spec.submodule_search_locations) or [])
    return any(not is_installed(place) for place in places)


@functools.lru_cache(maxsize=4096)
def is_installed(file: str | Path) -> bool:
    """Whether a file is part of Python or of an installed package."""
    path = Path(file).resolve()
    return bool(_FOLDERS_OF_PACKAGES & set(path.parts)) or any(
        path.is_relative_to(folder) for folder in _INSTALLED
    )
