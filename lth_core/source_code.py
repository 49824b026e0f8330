"""Digests of a user's code: of a module with all that it imports, or of a function."""

from __future__ import annotations

import ast
import datetime
import dis
import functools
import hashlib
import importlib.util
import io
import logging
import os
import re
import site
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import chain
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch

from lth_core.edited_code import nested_codes, refuse_edited

OURS = {"lth_core", "sweeps", "tracking"}
"""Packages whose code enters digests only as `SCHEMA`, even in an editable installation."""
MAIN = "__main__"
_INSTALLED = {
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
} | {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
_FOLDERS_OF_PACKAGES = {"site-packages", "dist-packages"}
_WRITTEN = (PurePath, range, slice, datetime.date, datetime.time, datetime.timedelta, np.ufunc,
            GenericAlias, UnionType, MemberDescriptorType, GetSetDescriptorType,
            WrapperDescriptorType)  # fmt: skip
"""Types whose `repr` says all of a value."""
_STRUCTURE = {"array", "bases", "class", "code", "constants", "function", "list", "logger",
              "mapping", "member", "method", "names", "partial", "pattern", "property", "tensor",
              "text"}  # fmt: skip
"""Keys of the parts of a value that are no names in a user's code."""


def factory_digest(factory: Callable[..., Any], module: ModuleType) -> str:
    """sha256 of a factory's code: of its module with all that it imports, or of the function.

    In an installed package, only the named module counts. In `__main__` the function counts, of a
    script too: the script may set a name that it uses, or define it again.

    Raises:
        ValueError: a file was edited after this process imported it, or a name of it was set.
        TypeError: a function of `__main__` uses a value whose content is not known.
    """
    if _user_file(module.__name__) and _is_of_file(factory, module):
        return module_digest(module)
    file = getattr(module, "__file__", None)
    if file and module.__name__ != MAIN:  # a module of an installed package
        return _sha256(Path(file).read_bytes())
    return function_digest(factory)


# Modules


def module_digest(module: ModuleType) -> str:
    """sha256 of a module's source and of the sources of all modules that it imports.

    Imports count wherever they stand in the source, in functions too; `import_module` counts where
    its argument is a literal. Modules of installed packages and of Python do not count. The digest
    of a module that imports no other is the sha256 of its file.

    Raises:
        ValueError: as `refuse_edited`.
    """
    return _digest_with_imports(module.__name__)


def _digest_with_imports(module: str) -> str:
    """`module_digest`, by the module's name; a module that is not imported yet counts too."""
    sources = user_sources(module)
    for name, path in sources.items():
        if name in sys.modules:
            refuse_edited(sys.modules[name], path)
    digests = {name: _sha256(path.read_bytes()) for name, path in sources.items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return _sha256(repr(sorted(digests.items())).encode())


def user_sources(module: str) -> dict[str, Path]:
    """File of a module and of each module that it imports, however deep, by the module's name."""
    sources = dict[str, Path]()
    pending = [module]
    while pending:
        name = pending.pop()
        path = _user_file(name)
        if name in sources or path is None:
            continue
        sources[name] = path
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        for imported in _imported_names(path.read_bytes(), package):
            parts = imported.split(".")
            pending += [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return sources


@functools.lru_cache(maxsize=1024)
def _imported_names(source: bytes, package: str) -> tuple[str, ...]:
    """Names that a source imports; some are attributes of modules, not modules."""
    names = list[str]()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a compiled module, or one that no import can load
        return ()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names += [alias.name for alias in aliases]
            case ast.ImportFrom(module=base, names=aliases, level=level):
                parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*parents, *([base] if base else [])])
                names += [base, *(f"{base}.{alias.name}" for alias in aliases if base)]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(literal)), *_],
            ):
                names.append(literal)
    return tuple(name for name in names if name and not name.startswith("."))


def _user_file(name: str) -> Path | None:
    """File of a user's module; None for `__main__` and modules of Python and installed packages."""
    top = name.partition(".")[0]
    if (
        name == MAIN
        or top in OURS
        or top in sys.stdlib_module_names
        or top in sys.builtin_module_names
    ):
        return None
    if name != top and not _is_user_package(top):
        return None
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):  # an attribute of a module
            return None
        file = spec.origin if spec and spec.has_location else None
    path = Path(file).resolve() if file else None
    return path if path and path.is_file() and not _is_installed(path) else None


def _is_user_package(package: str) -> bool:
    """Whether a package lies outside of the folders of installed packages."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return package in sys.modules
    places = [spec.origin] if spec and spec.has_location and spec.origin else []
    places += list((spec and spec.submodule_search_locations) or [])
    return any(not _is_installed(Path(place).resolve()) for place in places)


def _is_installed(path: Path) -> bool:
    return bool(_FOLDERS_OF_PACKAGES & set(path.parts)) or any(
        path.is_relative_to(folder) for folder in _INSTALLED
    )


# Functions of a script, of a notebook, or of `python -c`


def function_digest(function: Callable[..., Any]) -> str:
    """sha256 of a function's code, closure, defaults and the globals that it uses, however deep.

    Raises:
        TypeError: the code uses a value whose content is not known, such as an open file.
    """
    digest = hashlib.sha256()
    for part in _parts(function, "", {}):
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()


def _parts(value: Any, name: str, seen: dict[int, tuple[int, object]]) -> Iterator[bytes]:
    """A value as texts in one order.

    Args:
        name: where the value is, for errors.
        seen: number of each earlier value and the value itself, by `id`; the reference keeps the id
            from being reused.
    """
    if isinstance(value, (type(None), bool, int, float, complex, str, bytes, type(...), torch.dtype,
                          torch.device, np.dtype, np.generic)):  # fmt: skip
        yield f"{type(value).__name__} {value!r}".encode()
        return
    if id(value) in seen:
        yield f"seen {seen[id(value)][0]}".encode()
        return
    seen[id(value)] = (len(seen), value)
    yield type(value).__name__.encode()
    if isinstance(value, (set, frozenset)):
        yield from sorted(b"".join(_parts(each, name, dict(seen))) for each in value)
        return
    for key, part in _content(value, name):
        yield key.encode()
        if isinstance(part, bytes):
            yield part
        else:
            is_named = (key.isidentifier() and key not in _STRUCTURE) or "[" in key
            yield from _parts(part, key if is_named else name, seen)


def _content(value: Any, name: str) -> Iterable[tuple[str, Any]]:
    """Parts of a value, each with its name.

    Args:
        name: as for `_parts`.
    """
    if isinstance(value, dict):
        return chain.from_iterable(
            ((f"key {i}", key), (f"{name}[{key!r}]", part))
            for i, (key, part) in enumerate(value.items())
        )
    for kind, parts in _PARTS:
        if isinstance(value, kind):
            return parts(value)
    if is_dataclass(value):
        own = ((field.name, getattr(value, field.name, None)) for field in fields(value))
        return [("class", type(value)), *own]
    if hasattr(value, "__dict__") and not isinstance(value, _UNKNOWN):
        return [("class", type(value)), *vars(value).items()]
    raise TypeError(
        f"{name or 'the function'} is a {type(value).__name__}, whose content is not known: "
        "put the function into a module of its own"
    )


def _array_content(value: Any) -> Iterable[tuple[str, Any]]:
    """Parts of an array; of one of objects, each object."""
    head = f"{value.dtype} {value.shape}"
    return [("array", value.tolist() if value.dtype == object else head.encode() + value.tobytes())]


def _code_content(value: Any) -> Iterator[tuple[str, Any]]:
    """Parts of a module, a class, a function or its code; installed ones are known by name."""
    if isinstance(value, ModuleType):
        yield value.__name__, module_digest(value) if _user_file(value.__name__) else ""
        return
    if isinstance(value, CodeType):
        yield "code", value.co_code
        yield "names", (value.co_name, value.co_names, value.co_varnames, value.co_flags)
        yield "constants", value.co_consts
        return
    module = sys.modules.get(str(value.__module__))
    if module and _user_file(module.__name__) and _is_of_file(value, module):
        yield f"{value.__module__}.{value.__qualname__}", module_digest(module)
    elif _is_known(value, module):
        yield f"{value.__module__}.{value.__qualname__}", b""
    elif isinstance(value, type):
        yield "bases", value.__bases__
        yield from ((key, part) for key, part in vars(value).items() if key not in _IGNORED)
    else:
        yield "function", (value.__code__, value.__defaults__, value.__kwdefaults__)
        yield from ((f"closure {n}", _cell(c)) for n, c in _closure(value))
        used = sorted(set(_globals_of(value.__code__)) & value.__globals__.keys())
        yield from ((each, value.__globals__[each]) for each in used)
        imported = sorted(set(_imports_of(value.__code__, value.__globals__.get("__package__"))))
        yield from ((each, _digest_with_imports(each).encode()) for each in imported)


_PARTS: tuple[tuple[Any, Callable[[Any], Iterable[tuple[str, Any]]]], ...] = (
    ((list, tuple), lambda value: ((str(i), part) for i, part in enumerate(value))),
    (torch.Tensor, lambda value: [("tensor", value.detach().cpu().numpy())]),
    (np.ndarray, _array_content),
    ((ModuleType, CodeType, type, FunctionType, BuiltinFunctionType), _code_content),
    (functools.partial, lambda value: [("partial", (value.func, value.args, value.keywords))]),
    (MethodType, lambda value: [("method", (value.__self__, value.__func__))]),
    ((staticmethod, classmethod), lambda value: [("function", value.__func__)]),
    (property, lambda value: [("property", (value.fget, value.fset))]),
    (functools.cached_property, lambda value: [("function", value.func)]),
    (functools._lru_cache_wrapper, lambda value: [("function", value.__wrapped__)]),
    (MappingProxyType, lambda value: [("mapping", dict(value))]),
    (deque, lambda value: [("list", list(value))]),
    (re.Pattern, lambda value: [("pattern", (value.pattern, value.flags))]),
    (Enum, lambda value: [("member", (type(value), value.name))]),
    (logging.Logger, lambda value: [("logger", value.name)]),
    (_WRITTEN, lambda value: [("text", repr(value))]),
)
"""Parts of values by their type, the first that fits."""
_UNKNOWN = (io.IOBase, type(os.environ))
"""Types whose attributes do not say what a value contains, or change."""
_IGNORED = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__",
            "__static_attributes__", "__abstractmethods__", "_abc_impl", "__annotations__",
            "__annotate_func__", "__annotations_cache__", "__parameters__", "__orig_bases__",
            "__dataclass_fields__", "__dataclass_params__", "__match_args__"}  # fmt: skip
"""Attributes of a class without effect on its behaviour."""


def _closure(function: FunctionType) -> Iterator[tuple[str, Any]]:
    return zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)


def _cell(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _globals_of(code: CodeType) -> Iterator[str]:
    """Names of the globals that code and the functions inside it load."""
    for inner in nested_codes(code):
        for instruction in dis.get_instructions(inner):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield instruction.argval


def _imports_of(code: CodeType, package: str | None) -> Iterator[str]:
    """Names of the user's modules that code and the functions inside it import."""
    for inner in nested_codes(code):
        every = dis.get_instructions(inner)
        instructions = [each for each in every if each.opname != "EXTENDED_ARG"]
        for i, instruction in enumerate(instructions):
            if instruction.opname == "IMPORT_NAME":
                level = instructions[i - 2].argval
                if level and not package:  # the import would fail
                    continue
                base = importlib.util.resolve_name("." * level + instruction.argval, package)
                parts = base.split(".")
                names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
                names += [f"{base}.{name}" for name in instructions[i - 1].argval or ()]
                yield from (name for name in names if _user_file(name))


def _is_of_file(value: object, module: ModuleType) -> bool:
    """Whether a value of a module comes from the module's file, and was not typed in later."""
    if not isinstance(value, FunctionType) or value.__module__ != module.__name__:
        return True
    return Path(value.__code__.co_filename).resolve() == _user_file(module.__name__)


def _is_known(value: object, module: ModuleType | None) -> bool:
    """Whether a class or function comes from Python or an installed package."""
    if module is None or isinstance(value, BuiltinFunctionType):
        return isinstance(value, BuiltinFunctionType)
    return module.__name__ != MAIN and (
        module.__name__.partition(".")[0] in OURS
        or getattr(module, "__file__", None) is None
        or _is_installed(Path(str(module.__file__)).resolve())
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
