"""Syntax tree and bytecode of a source: names that it binds and uses, values that it changes."""

from __future__ import annotations

import ast
import dis
import functools
from collections import Counter
from collections.abc import Iterator
from types import CodeType
from typing import NamedTuple

_CHANGING = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove",
             "reverse", "setdefault", "sort", "update"}  # fmt: skip
"""Methods that change a list, a set or a mapping."""


ANY = "*"
"""Name of a change of names that are known only when the code runs."""


class Change(NamedTuple):
    """A statement that sets a name of another scope, an attribute or an item."""

    name: str
    """The global, the attribute, or that which has the item; or `ANY`."""
    owner: str
    """Name of the object whose attribute is set, such as `self`; or empty."""
    line: int


@functools.lru_cache(maxsize=1024)
def parsed(source: bytes) -> ast.Module:
    """The syntax tree of a source; an empty one where Python cannot read it."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):  # a compiled module, or one that no import can load
        return ast.Module(body=[], type_ignores=[])


@functools.lru_cache(maxsize=256)
def compiled(source: bytes, file: str) -> CodeType | None:
    """Code of a source; None where it cannot be compiled."""
    try:
        return compile(source, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None


def nested_codes(code: object) -> Iterator[CodeType]:
    """Code, and that of the functions and classes in it; of no code, none."""
    if isinstance(code, CodeType):
        yield code
        for value in code.co_consts:
            yield from nested_codes(value)


def globals_of(code: CodeType) -> Iterator[str]:
    """Names of the globals that code and the functions inside it load."""
    for inner in nested_codes(code):
        for instruction in dis.get_instructions(inner):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield instruction.argval


def bindings(code: CodeType | None) -> Counter[str]:
    """Number of times that code of a module or a class binds each name, at least."""
    instructions = dis.get_instructions(code) if code else ()
    return Counter(i.argval for i in instructions if i.opname in ("STORE_NAME", "DELETE_NAME"))


@functools.lru_cache(maxsize=1024)
def changes(source: bytes) -> frozenset[Change]:
    """Changes of a source: all that it sets but the names of its own scope."""
    return frozenset(change for node in ast.walk(parsed(source)) for change in _changes(node))


def _changes(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Global(names=names):
            yield from (Change(name, "", node.lineno) for name in names)
        case ast.Attribute(value=owner, attr=name, ctx=ast.Store() | ast.Del()):
            yield Change(name, _name(owner), node.lineno)
        case ast.Subscript(value=changed, ctx=ast.Store() | ast.Del()):
            yield Change(_name(changed), "", node.lineno)
        case ast.Call(func=ast.Attribute(value=changed, attr=attr)) if attr in _CHANGING:
            yield Change(_name(changed), "", node.lineno)
        case ast.Call(
            func=ast.Name(id="setattr" | "delattr"),
            args=[owner, ast.Constant(value=str(name)), *_],
        ):
            yield Change(name, _name(owner), node.lineno)
        case ast.Call(func=ast.Name(id="setattr" | "delattr" | "globals" | "exec")):
            yield Change(ANY, "", node.lineno)


@functools.lru_cache(maxsize=1024)
def handed_over(source: bytes) -> frozenset[str]:
    """Names and attributes that a source uses otherwise than to read an attribute or item of them:
    under another name it may change what they stand for."""
    nodes = list(ast.walk(parsed(source)))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    read = {
        id(node.value) for node in nodes
        if isinstance(node, ast.Attribute | ast.Subscript) and id(node) not in called
    }  # fmt: skip
    return frozenset(
        _name(node) for node in nodes
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
        and id(node) not in read
    )  # fmt: skip


def _name(expression: ast.expr) -> str:
    """A variable's name, or the last part of an attribute's; of an item, that which has it."""
    match expression:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=owner):
            return _name(owner)
    return ""
