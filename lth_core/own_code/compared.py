"""Comparison of the names of a module in memory with those that its source makes."""

from __future__ import annotations

import ast
import builtins
import functools
import math
import operator
import sys
from abc import ABCMeta
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from importlib.util import resolve_name
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

from lth_core.own_code.scopes import Change, bindings, parsed

_CODE = (type, FunctionType, BuiltinFunctionType, ModuleType)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple)
_CONTAINERS = {ast.Tuple: tuple, ast.List: list, ast.Set: set}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
}  # fmt: skip
_TRANSPARENT = {"staticmethod", "classmethod", "property"}
"""Decorators below which a function is found again."""
_MOST_WRAPPERS = 16
"""Largest number of wrappers around a function; one may claim to wrap itself."""


def other_name(
    module: ModuleType, source: bytes, changed: Iterable[Change], related: Mapping[str, Any]
) -> str:
    """A name of a module that holds another value than a source gives to it, or an empty text.

    A class's attribute is named `Class.attribute`. Names count that are bound once, and that no
    code changes; values count that are known without running code.

    Args:
        changed: what the source changes.
        related: what the sources of this and other modules change, by module.
    """
    tree = parsed(source)
    everywhere = [change for each in related.values() for change in each]
    file = _File(
        module=module,
        related=related.keys(),
        codes=compiled(source, str(module.__file__)) or frozenset(),
        bound=Counter(bindings(tree.body)),
        changed={c.name for c in changed if c.owner != "self"}
        | {c.name for c in everywhere if c.owner in ("", "cls")},
        changed_anywhere={c.name for c in everywhere},
    )
    body = tree.body[_after_star_imports(tree) :]
    return next(_others(file, body, vars(module), ""), "")


@dataclass(frozen=True)
class _File:
    """A module, and its source."""

    module: ModuleType
    related: Iterable[str]
    """Names of the user's modules that belong together."""
    codes: frozenset[CodeType]
    """All code of the source."""
    bound: Counter[str]
    """Number of times that each global is bound."""
    changed: set[str]
    """Names that code of the source changes."""
    changed_anywhere: set[str]
    """Names that code of any related module changes."""


def _after_star_imports(tree: ast.Module) -> int:
    """Number of statements up to the last import of all names of a module, which may bind any."""
    stars = [
        i for i, statement in enumerate(tree.body, 1) for node in ast.walk(statement)
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]  # fmt: skip
    return max(stars, default=0)


def _others(
    file: _File, body: Iterable[ast.stmt], now: Mapping[str, Any], owner: str
) -> Iterator[str]:
    """Names of a module or class that hold other values than the statements of its body give.

    Args:
        owner: the class's name with a dot at its end, or empty.
    """
    body = list(body)
    bound = Counter(bindings(body)) if owner else file.bound
    for statement in body:
        for name, is_other in _made_by(file, statement, bound if owner else {}, owner):
            is_bound_once = bound[name] == 1 and name not in file.changed
            if name in now and is_bound_once and is_other(now[name]):
                yield owner + name
        if isinstance(statement, ast.ClassDef) and bound[statement.name] == 1:
            value: Any = now.get(statement.name)
            if _is_class(value, owner + statement.name) and _is_plain(statement, value):
                yield from _others(file, statement.body, vars(value), f"{owner}{statement.name}.")


def _made_by(
    file: _File, statement: ast.stmt, local: Mapping[str, int], owner: str
) -> Iterator[tuple[str, Callable[[Any], bool]]]:
    """Names that a statement binds, each with whether a value is another than it binds.

    Args:
        local: names that are bound in the class around it.
        owner: as in `_others`.
    """
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name, partial(_is_other_function, file, local, statement)
        case ast.ClassDef(name=name, decorator_list=[], keywords=[]):
            yield name, lambda value: not _is_class(value, owner + name)
        case ast.Assign(targets=targets, value=expression):
            for target in targets:
                for name, part in _pairs(target, expression):
                    yield name, partial(_differs, file, local, part)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression):
            yield name, partial(_differs, file, local, expression)
        case ast.Import(names=aliases):
            for alias in aliases:
                base, _, name = alias.name.rpartition(".")
                if base and alias.asname:
                    yield alias.asname, partial(_is_other_import, file, base, name)
                else:
                    top = alias.name.partition(".")[0]
                    if top in sys.modules:
                        yield alias.asname or top, partial(operator.is_not, sys.modules[top])
        case ast.ImportFrom(module=base, names=aliases, level=level):
            base = resolve_name("." * level + (base or ""), file.module.__package__)
            for alias in aliases:
                yield alias.asname or alias.name, partial(_is_other_import, file, base, alias.name)


def _is_class(value: object, name: str) -> bool:
    """Whether a value may be the class of a name, whose methods are compared then."""
    return isinstance(value, type) and value.__qualname__ == name


def _is_plain(statement: ast.ClassDef, value: type) -> bool:
    """Whether a class has the attributes that its body makes: nothing transforms them."""
    is_named_tuple = issubclass(value, tuple) and hasattr(value, "_fields")
    return not statement.decorator_list and type(value) in (type, ABCMeta) and not is_named_tuple


def _is_other_import(file: _File, base: str, name: str, value: object) -> bool:
    """Whether a value is another than the name of a module that was imported."""
    source = sys.modules.get(base)
    expected = vars(source).get(name, MISSING) if source else MISSING
    if expected is MISSING or name in file.changed_anywhere:
        return False
    if value is sys.modules.get(f"{base}.{name}"):
        return False
    is_known = isinstance(expected, _CODE) or base in file.related
    return is_known and not _alike(value, expected)


def _is_other_function(
    file: _File,
    local: Mapping[str, int],
    statement: ast.FunctionDef | ast.AsyncFunctionDef,
    value: object,
) -> bool:
    """Whether a value is another function than a statement defines; one in a decorator is not."""
    decorators = statement.decorator_list
    if any(not isinstance(d, ast.Name) or d.id not in _TRANSPARENT for d in decorators):
        return False
    first = min([statement.lineno, *(d.lineno for d in decorators)])
    is_wrapped = local or decorators  # a base class may wrap its methods
    function = function_in(value) if is_wrapped else value
    return _is_other_code(file, local, statement.name, first, statement.args, function)


def _is_other_code(
    file: _File, local: Mapping[str, int], name: str, line: int, arguments: ast.arguments,
    value: object,
) -> bool:  # fmt: skip
    """Whether a value is another function than that of a name and line of the source."""
    if not isinstance(value, FunctionType):
        return True
    code = value.__code__
    if code not in file.codes or (code.co_name, code.co_firstlineno) != (name, line):
        return True
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    expressions = [*arguments.defaults, *(default for _, default in named if default)]
    values = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return len(values) != len(expressions) or any(
        map(partial(_differs, file, local), expressions, values)
    )


# Values of expressions


def _pairs(target: ast.expr, expression: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Names of an assignment, each with the expression that it is assigned."""
    match target, expression:
        case ast.Name(id=name), _ if name[:2] != "__":
            yield name, expression
        case ast.Tuple(elts=targets), ast.Tuple(elts=parts) if len(targets) == len(parts):
            for each, part in zip(targets, parts, strict=True):
                yield from _pairs(each, part)


def _differs(file: _File, local: Mapping[str, int], expression: ast.expr, value: object) -> bool:
    """Whether a value is known to be another than that of an expression."""
    match expression:
        case ast.Lambda(args=arguments, lineno=line):
            return _is_other_code(file, local, "<lambda>", line, arguments, value)
        case ast.Call(func=made, args=arguments, keywords=keywords):
            given = {keyword.arg: keyword.value for keyword in keywords}
            return _is_made_otherwise(file, local, made, arguments, given, value)
    try:
        known = _value(file, local, expression)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return False
    if isinstance(known, list | dict | set) and not known:  # a cache, that code fills
        return type(value) is not type(known)
    return not _alike(value, known)


def _is_made_otherwise(
    file: _File, local: Mapping[str, int], made: ast.expr, arguments: list[ast.expr],
    given: dict[str | None, ast.expr], value: object,
) -> bool:  # fmt: skip
    """Whether a value is another than the mapping, namespace or dataclass that a call makes."""
    try:
        kind = _value(file, local, made)
    except (AttributeError, LookupError, TypeError, ValueError):
        return False
    defaults = dict[str, object]()
    if _is_plain_dataclass(kind):
        places = [f.name for f in fields(kind) if f.init and not f.kw_only]
        given |= dict(zip(places, arguments, strict=False))
        defaults = {f.name: f.default for f in fields(kind) if isinstance(f.default, _PLAIN)}
    elif kind not in (dict, SimpleNamespace) or arguments:
        return False
    if None in given or not isinstance(value, kind):
        return None not in given
    parts: dict[str | None, Any] = value if kind is dict else _attributes(value)
    return any(
        name not in parts or _differs(file, local, expression, parts[name])
        for name, expression in given.items()
        if name not in file.changed
    ) or any(
        not _alike(parts.get(name), default)
        for name, default in defaults.items()
        if name not in given and name not in file.changed
    )


def _is_plain_dataclass(kind: object) -> bool:
    """Whether instances of a class have the values of the fields that they are made with."""
    if not is_dataclass(kind) or hasattr(kind, "__post_init__"):
        return False
    code = getattr(vars(kind).get("__init__"), "__code__", None)
    return isinstance(code, CodeType) and code.co_filename == "<string>"


def _attributes(value: Any) -> dict[Any, Any]:
    slots = [f.name for f in fields(value)] if is_dataclass(value) else []
    return {n: getattr(value, n) for n in slots if hasattr(value, n)} | getattr(
        value, "__dict__", {}
    )


def _value(file: _File, local: Mapping[str, int], expression: ast.expr) -> Any:
    """Value of an expression of constants, classes and functions.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is not known.
    """
    value_of = partial(_value, file, local)
    match expression:
        case ast.Constant(value=value):
            return value
        case ast.Name() | ast.Attribute():
            value = _named(file, local, expression)
            if isinstance(value, _CODE) or (
                isinstance(expression, ast.Name) and isinstance(value, _PLAIN)
            ):
                return value
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return _CONTAINERS[type(expression)](map(value_of, parts))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return dict(zip(map(value_of, keys), map(value_of, values), strict=True))
        case ast.BinOp(left=left, right=right, op=symbol):
            return _OPERATORS[type(symbol)](value_of(left), value_of(right))
        case ast.UnaryOp(operand=operand, op=symbol):
            return _OPERATORS[type(symbol)](value_of(operand))
    raise ValueError


def _named(file: _File, local: Mapping[str, int], expression: ast.expr) -> Any:
    match expression:
        case ast.Name(id=name):
            names, of_python = vars(file.module), vars(builtins)
            may_be_either = name in names and name in of_python
            if name in local or may_be_either or file.bound[name] > 1 or name in file.changed:
                raise LookupError
            return names[name] if name in names else of_python[name]
        case ast.Attribute(value=owner, attr=attribute):
            found = _named(file, local, owner)
            if isinstance(found, _CODE) and attribute not in file.changed_anywhere:
                return getattr(found, attribute)
    raise ValueError


def _alike(value: Any, other: Any) -> bool:
    """Whether two values are one, or equal; functions and classes may be equal by their code."""
    if value is other:
        return True
    if type(value) is not type(other):
        return False
    match other:
        case FunctionType():
            value, other = function_in(value), function_in(other)
            return bool(value and other and value.__code__ == other.__code__)
        case type():  # of a module that was loaded again
            return _written(value) == _written(other)
        case dict():  # others may be registered beside them
            return all(key in value and _alike(value[key], part) for key, part in other.items())
        case list() | tuple():
            return len(value) == len(other) and all(map(_alike, value, other))
        case set():
            return bool(value >= other)
    is_nan = isinstance(other, float) and math.isnan(other) and math.isnan(value)
    return is_nan or (isinstance(other, (*_PLAIN, *_CODE)) and bool(value == other))


def _written(kind: type) -> tuple[object, ...]:
    """Name, code, and plain attributes of a class."""
    attributes = {
        name: part for name, part in vars(kind).items()
        if isinstance(part, _PLAIN) and name[:2] != "__"
    }  # fmt: skip
    return kind.__module__, kind.__qualname__, set(codes_of(kind)), attributes


# Code


@functools.lru_cache(maxsize=256)
def compiled(source: bytes, file: str) -> frozenset[CodeType] | None:
    """All code of a source; None where it cannot be compiled."""
    try:
        return frozenset(nested_codes(compile(source, file, "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):
        return None


def nested_codes(code: CodeType) -> Iterator[CodeType]:
    """Code, and that of the functions and classes in it."""
    yield code
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from nested_codes(value)


def codes_of(owner: ModuleType | type, seen: set[object] | None = None) -> Iterator[CodeType]:
    """Code of the functions and methods that a module or class defines; `seen` classes left out."""
    seen = {owner} if seen is None else seen
    module = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
    for value in list(vars(owner).values()):
        function = function_in(value)
        if function is not None:
            yield function.__code__
        elif isinstance(value, type) and value.__module__ == module and value not in seen:
            seen.add(value)
            yield from codes_of(value, seen)


def function_in(value: object) -> FunctionType | None:
    """The function below decorators, static and class methods and properties."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    for _ in range(_MOST_WRAPPERS):
        value = getattr(value, "__wrapped__", value)
    return value if isinstance(value, FunctionType) else None
