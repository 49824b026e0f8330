"""Comparison of the names of a module in memory with those that its source gives."""

from __future__ import annotations

import ast
import builtins
import sys
from abc import ABCMeta
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from importlib.util import resolve_name
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

from lth_core.own_code.alike import FIXED, PLAIN, alike
from lth_core.own_code.scopes import (
    ANY,
    bindings,
    changes,
    compiled,
    handed_over,
    nested_codes,
    parsed,
)

_MAKERS = (dict, list, set, tuple, frozenset, SimpleNamespace)
_NODES = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp,
          ast.unaryop, ast.operator, ast.expr_context, ast.keyword)  # fmt: skip
"""Parts of expressions that have a value without running a user's code."""
_TRANSPARENT = {"staticmethod", "classmethod", "property"}
"""Decorators below which a function is found again."""


class Related:
    """Modules that belong together, and what their sources do with values.

    Args:
        sources: by module.
    """

    def __init__(self, sources: Mapping[str, bytes]) -> None:
        self.sources = sources
        every = {change for source in sources.values() for change in changes(source)}
        self.changes_any = any(change.name == ANY for change in every)
        """Whether a source changes names that are known only when it runs."""
        self.changed = {c.name for c in every if c.owner in ("", "cls")}
        """Names that a source changes, of whatever has them."""
        self.handed_over = frozenset().union(*map(handed_over, sources.values()))
        """Names whose values a source may change under another name."""


def other_name(module: ModuleType, related: Related) -> str:
    """A name of a module that has another value than its source gives; `Class.attribute`; or empty.

    Names count that are bound once, and that no code changes, with a value that is known without
    running code. A container or an object counts where all code only reads its items or attributes,
    by those of them that are plain.

    Args:
        related: this module and those that belong to it.
    """
    if related.changes_any:
        return ""
    source = related.sources[module.__name__]
    code, own = compiled(source, str(module.__file__)), changes(source)
    scope = _Scope(
        module=module,
        names=vars(module),
        related=related,
        codes=frozenset(nested_codes(code)),
        changed={"__all__"} | {c.name for c in own if c.owner != "self"} | related.changed,
    )
    return next(_others(scope, code, parsed(source).body), "")


@dataclass(frozen=True)
class _Scope:
    """A module or a class, and its source."""

    module: ModuleType
    names: Mapping[str, Any]
    """Values in memory by name."""
    related: Related
    codes: frozenset[CodeType]
    """All code of the source."""
    changed: set[str]
    """Names that the user's code changes."""
    bound: Counter[str] = field(default_factory=Counter)
    """Number of times that this scope and those around it bind each name."""


def _others(
    scope: _Scope, code: CodeType | None, body: list[ast.stmt], owner: str = ""
) -> Iterator[str]:
    """Names that hold other values than the statements of a module's or class's body give.

    Args:
        owner: the class's name with a dot at its end, or empty.
    """
    bound = bindings(code)
    scope = replace(scope, bound=scope.bound + bound)
    stars = [
        i for i, statement in enumerate(body) for part in ast.walk(statement)
        if isinstance(part, ast.alias) and part.name == "*"
    ]  # fmt: skip
    for statement in body[max(stars, default=-1) + 1 :]:  # an import of `*` may bind any name
        for name, given in _given(scope, statement):
            counts = bound[name] == 1 and name in scope.names and name not in scope.changed
            if counts and not alike(scope.names[name], given, scope.changed):
                yield owner + name
        if isinstance(statement, ast.ClassDef) and bound[statement.name] == 1:
            value: Any = scope.names.get(statement.name)
            code, name = _code(scope, statement.name, statement), owner + statement.name
            is_plain = type(value) in (type, ABCMeta) and not statement.decorator_list
            is_named_tuple = hasattr(value, "_fields")
            if is_plain and not is_named_tuple and code is not MISSING and alike(value, code):
                inner = replace(scope, names=vars(value))
                yield from _others(inner, code, statement.body, f"{name}.")


def _given(scope: _Scope, statement: ast.stmt) -> Iterator[tuple[str, Any]]:
    """Names that a statement binds, each with its value, or a definition's code, if known."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            decorators = statement.decorator_list
            if {ast.unparse(each) for each in decorators} <= _TRANSPARENT:
                yield name, _code(scope, name, *decorators, statement)
        case ast.ClassDef(name=name, decorator_list=[], keywords=[]):
            yield name, _code(scope, name, statement)
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=expression)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression)
        ):
            value = _value(scope, expression)
            is_fixed = isinstance(value, (*FIXED, *PLAIN, CodeType))
            yield name, value if is_fixed or name not in scope.related.handed_over else MISSING
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=parts)):
            pairs = zip(targets, parts, strict=False) if len(targets) == len(parts) else ()
            yield from ((t.id, _value(scope, part)) for t, part in pairs if isinstance(t, ast.Name))
        case ast.Import(names=aliases):
            for alias in aliases:
                module = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or module, sys.modules.get(module, MISSING)
        case ast.ImportFrom(module=base, names=aliases, level=level):
            base = resolve_name("." * level + (base or ""), scope.module.__package__)
            names = getattr(sys.modules.get(base), "__dict__", {})
            for alias in aliases:
                value = names.get(alias.name, MISSING)
                is_fixed = isinstance(value, FIXED) or base in scope.related.sources
                if is_fixed and sys.modules.get(f"{base}.{alias.name}", value) is value:
                    yield alias.asname or alias.name, value


def _code(scope: _Scope, name: str, *parts: ast.expr | ast.stmt) -> Any:
    """Code of a name of a definition that begins with any of its parts; `MISSING` if not known."""
    place = name, min(part.lineno for part in parts)
    codes = [code for code in scope.codes if (code.co_name, code.co_firstlineno) == place]
    return codes[0] if len(codes) == 1 else MISSING  # two may be in a line


def _value(scope: _Scope, expression: ast.expr) -> Any:
    """Value of an expression, or the code of a lambda; `MISSING` if code need run to know it."""
    if isinstance(expression, ast.Lambda):
        return _code(scope, "<lambda>", expression)
    inner_first = reversed([*ast.walk(expression)])
    try:
        is_known = all(_is_known(scope, part) for part in inner_first)
        return _evaluated(scope, expression) if is_known else MISSING
    except (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError):
        return MISSING


def _evaluated(scope: _Scope, expression: ast.expr) -> Any:
    code = compile(ast.Expression(expression), "<expression>", "eval")
    return eval(code, vars(scope.module), scope.names)


def _is_known(scope: _Scope, part: ast.AST) -> bool:
    """Whether the value of a part of an expression follows from the source; its own parts do."""
    match part:
        case ast.Name(id=name):
            is_bound_once = scope.bound[name] + (name in vars(builtins)) == 1
            is_fixed = is_bound_once and name not in scope.changed
            return is_fixed and isinstance(_evaluated(scope, part), (*FIXED, *PLAIN))
        case ast.Attribute(value=owner, attr=name):
            are_fixed = (isinstance(_evaluated(scope, each), FIXED) for each in (owner, part))
            return name not in scope.changed and all(are_fixed)
        case ast.Call(func=maker):
            return _only_makes(_evaluated(scope, maker))
    return isinstance(part, _NODES)


def _only_makes(maker: Any) -> bool:
    """Whether a call returns a new container, namespace or dataclass and does nothing else."""
    if isinstance(maker, type) and is_dataclass(maker):
        code = getattr(maker.__init__, "__code__", None)
        is_own = hasattr(maker, "__post_init__") or code is None or code.co_filename != "<string>"
        factories = [f.default_factory for f in fields(maker) if f.default_factory is not MISSING]
        return not is_own and all(map(_only_makes, factories))
    if isinstance(maker, FunctionType):  # of constants
        return not (maker.__code__.co_names or maker.__code__.co_varnames or maker.__closure__)
    return maker in _MAKERS
