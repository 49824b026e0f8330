"""Whether the code of a module in memory is still that of its file."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

_imported: dict[str, tuple[object, str]] = {}
"""The module spec and the sha256 of the file of each module, as they were when first seen here."""


def refuse_edited(module: ModuleType, path: Path) -> None:
    """Check that this process runs the code that a module's file has now.

    The module is compared with its file, function by function, and constant by constant.

    Raises:
        ValueError: it runs other code, or one of its constants was set.
    """
    content, spec = path.read_bytes(), module.__spec__
    digest, recorded = hashlib.sha256(content).hexdigest(), _imported.get(module.__name__)
    same, constant = _has_code(module, content), _other_constant(module, content)
    if recorded is None or recorded[0] is not spec:  # a reload makes a new spec
        recorded = spec, digest if same and not constant else ""
        _imported[module.__name__] = recorded
    if recorded[1] != digest or not same or constant:
        was_set = f", or {constant} was set," if constant else ","
        raise ValueError(
            f"{path} was edited after this process imported it{was_set} and the code in memory is "
            "not the file's: restart the process"
        )


def nested_codes(code: CodeType) -> Iterator[CodeType]:
    """Code, and that of the functions and classes in it."""
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from nested_codes(value)


def _has_code(module: ModuleType, source: bytes) -> bool:
    """Whether a module's functions are those of a source."""
    if not _is_plain(module):
        return True
    file = str(module.__file__)
    codes = _compiled(source, file)
    return codes is not None and all(
        code in codes for code in _codes_of(module) if code.co_filename == file
    )


def _is_plain(module: ModuleType) -> bool:
    """Whether a module's code was not transformed when it was imported."""
    return type(module.__loader__) is SourceFileLoader


@functools.lru_cache(maxsize=256)
def _compiled(source: bytes, file: str) -> frozenset[CodeType] | None:
    """All code of a source; None where it cannot be compiled."""
    try:
        return frozenset(nested_codes(compile(source, file, "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):
        return None


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


# Constants


def _other_constant(module: ModuleType, source: bytes) -> str:
    """Name of a constant that has another value than a source assigns to it, or an empty text."""
    names = vars(module)
    for name, expression in _assigned_once(source).items() if _is_plain(module) else ():
        try:
            value = _value(expression, names)
        except (LookupError, ValueError, AttributeError):
            continue
        now = names.get(name, value)
        if type(now) is not type(value) or now != value:
            return name
    return ""


def _value(expression: ast.expr, names: dict[str, object]) -> object:
    """Value of a number, a text, a tuple of them, or of the name of a class or function.

    Raises:
        LookupError, AttributeError, ValueError: it is none of them.
    """
    if isinstance(expression, ast.Name | ast.Attribute):
        found = _named(expression, names)
        if isinstance(found, type | FunctionType | BuiltinFunctionType):
            return found
        raise ValueError
    value = ast.literal_eval(expression)
    if isinstance(value, int | float | str | tuple):
        return value
    raise ValueError


def _named(expression: ast.expr, names: dict[str, object]) -> object:
    match expression:
        case ast.Name(id=name):
            return names[name]
        case ast.Attribute(value=owner, attr=attribute):
            return getattr(_named(owner, names), attribute)
    raise ValueError


@functools.lru_cache(maxsize=256)
def _assigned_once(source: bytes) -> dict[str, ast.expr]:
    """Expressions that a module's source assigns to a name that it binds only there, by name."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    bound, last = Counter(_bound(tree)), _last_star_import(tree)
    assigned = dict[str, ast.expr]()
    for statement in tree.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=expression)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression)
            ) if bound[name] == 1 and statement.lineno > last:
                assigned[name] = expression
    return {
        name: expression
        for name, expression in assigned.items()
        if all(bound[n.id] == 1 for n in ast.walk(expression) if isinstance(n, ast.Name))
    }


def _bound(tree: ast.Module) -> Iterator[str]:
    """Names that a source binds, each as often as it does."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name, asname=alias):
                yield alias or name.partition(".")[0]


def _last_star_import(tree: ast.Module) -> int:
    """Line of the last import of all names of a module, which may bind any; 0: there is none."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return max((i.lineno for i in imports if any(a.name == "*" for a in i.names)), default=0)
