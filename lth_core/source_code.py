"""Digests of a user's code: of a module with all that it imports, or of a function."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

OURS = {"lth_core", "sweeps", "tracking"}
"""Packages whose code enters digests only as `SCHEMA`, even in an editable installation."""
_INSTALLED = {
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
} | {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
_FOLDERS_OF_PACKAGES = {"site-packages", "dist-packages"}


def factory_digest(factory: Callable[..., Any], module: ModuleType) -> str:
    """sha256 of a factory's code: of its module with all that it imports, or of the function.

    In an installed package, only the named module counts.

    Raises:
        ValueError: a file was edited after this process imported it.
        TypeError: without a file, the code uses a value whose content is not known.
    """
    if _user_file(module.__name__) and _is_of_file(factory, module):
        return module_digest(module)
    file = getattr(module, "__file__", None)
    if file and module.__name__ != "__main__":  # a module of an installed package
        return _sha256(Path(file).read_bytes())
    return function_digest(factory)


# Modules


def module_digest(module: ModuleType) -> str:
    """sha256 of a module's source and of the sources of all modules that it imports.

    Imports count wherever they stand in the source, in functions too; `import_module` counts where
    its argument is a literal. Modules of installed packages and of Python do not count. The digest
    of a module that imports no other is the sha256 of its file.

    Raises:
        ValueError: a module's source was edited after this process imported it.
    """
    sources = user_sources(module)
    for name, path in sources.items():
        if name in sys.modules:
            _refuse_edited(sys.modules[name], path)
    digests = {name: _sha256(path.read_bytes()) for name, path in sources.items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return _sha256(repr(sorted(digests.items())).encode())


def user_sources(module: ModuleType) -> dict[str, Path]:
    """File of a module and of each module that it imports, however deep, by the module's name."""
    sources = dict[str, Path]()
    pending = [module.__name__]
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
    """File of a user's module; None for modules of Python and of installed packages."""
    top = name.partition(".")[0]
    if top in OURS or top in sys.stdlib_module_names or top in sys.builtin_module_names:
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


# Code that was edited after its import


_imported: dict[str, tuple[object, str]] = {}
"""The module spec and the sha256 of the file of each module, as they were when first seen here."""


def _refuse_edited(module: ModuleType, path: Path) -> None:
    """Check that this process runs the code that a module's file has now.

    A module that was imported before it is first seen here is compared with its file, function by
    function, and constant by constant.

    Raises:
        ValueError: it runs other code.
    """
    content, spec = path.read_bytes(), module.__spec__
    recorded = _imported.get(module.__name__)
    if recorded is None or recorded[0] is not spec:  # a reload makes a new spec
        same = _matches(module, content)
        recorded = (spec, _sha256(content)) if same else (spec, "")
        _imported[module.__name__] = recorded
    if recorded[1] != _sha256(content):
        raise ValueError(
            f"{path} was edited after this process imported it, and the code in memory is not the "
            "file's: restart the process"
        )


def _matches(module: ModuleType, source: bytes) -> bool:
    """Whether a module's functions and constants are those of a source."""
    if type(module.__loader__) is not SourceFileLoader:  # the code was transformed on import
        return True
    try:
        tree = ast.parse(source)
        compiled = compile(source, str(module.__file__), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    codes: dict[str, list[CodeType]] = {}
    for code in _nested(compiled):
        codes.setdefault(code.co_qualname, []).append(code)
    return all(
        code in codes.get(code.co_qualname, [])
        for code in _codes_of(module)
        if code.co_filename == compiled.co_filename
    ) and all(vars(module).get(name, value) == value for name, value in _constants(tree).items())


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _nested(value)


def _codes_of(owner: ModuleType | type) -> Iterator[CodeType]:
    """Code of the functions and methods that a module or class defines."""
    module = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    for value in list(vars(owner).values()):
        function = _function_in(value)
        if function is not None:
            yield function.__code__
        elif isinstance(value, type) and value.__module__ == module and value is not owner:
            yield from _codes_of(value)


def _function_in(value: object) -> FunctionType | None:
    """The function below decorators, static and class methods and properties."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    while hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    return value if isinstance(value, FunctionType) else None


def _constants(tree: ast.Module) -> dict[str, object]:
    """Numbers, texts and tuples of them that a module's source assigns to a name, once."""
    stored = [
        node.id for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    ]  # fmt: skip
    constants = dict[str, object]()
    for statement in tree.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=expression)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression)
            ) if stored.count(name) == 1:
                try:
                    value = ast.literal_eval(expression)
                except ValueError:
                    continue
                if isinstance(value, int | float | str | tuple):
                    constants[name] = value
    return constants


# Functions without a file: of a notebook, or of `python -c`


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
            yield from _parts(part, key or name, seen)


def _content(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Parts of a value, each with its name."""
    if isinstance(value, (list, tuple)):
        yield from ((str(i), part) for i, part in enumerate(value))
    elif isinstance(value, dict):
        for i, (key, part) in enumerate(value.items()):
            yield f"key {i}", key
            yield f"{name}[{key!r}]", part
    elif isinstance(value, torch.Tensor):
        yield "tensor", value.detach().cpu().numpy()
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield "array", f"{value.dtype} {value.shape}".encode() + value.tobytes()
    elif isinstance(value, functools.partial):
        yield "partial", (value.func, value.args, value.keywords)
    elif isinstance(value, MethodType):
        yield "method", (value.__self__, value.__func__)
    elif isinstance(value, staticmethod | classmethod):
        yield "function", value.__func__
    elif isinstance(value, property):
        yield "property", (value.fget, value.fset)
    elif isinstance(value, (ModuleType, CodeType, type, FunctionType, BuiltinFunctionType)):
        yield from _code_content(value)
    else:
        raise TypeError(
            f"{name or 'the function'} is a {type(value).__name__}, whose content is not known: "
            "put the function into a module of its own"
        )


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
    for inner in _nested(code):
        for instruction in dis.get_instructions(inner):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield instruction.argval


def _is_of_file(value: object, module: ModuleType) -> bool:
    """Whether a value of a module comes from the module's file, and was not typed in later."""
    if not isinstance(value, FunctionType) or value.__module__ != module.__name__:
        return True
    return Path(value.__code__.co_filename).resolve() == _user_file(module.__name__)


def _is_known(value: object, module: ModuleType | None) -> bool:
    """Whether a class or function comes from Python or an installed package."""
    if module is None or isinstance(value, BuiltinFunctionType):
        return isinstance(value, BuiltinFunctionType)
    return module.__name__ != "__main__" and (
        module.__name__.partition(".")[0] in OURS
        or getattr(module, "__file__", None) is None
        or _is_installed(Path(str(module.__file__)).resolve())
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
