"""Digests of functions of a script, a notebook or `python -c`, by all the values that they use."""

from __future__ import annotations

import datetime
import dis
import functools
import hashlib
import importlib.util
import io
import logging
import operator
import os
import re
import struct
import sys
from collections import defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from inspect import getattr_static
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch

from lth_core.own_code.modules import digest_of_modules, module_digest
from lth_core.own_code.scopes import globals_of, nested_codes
from lth_core.own_code.sources import MAIN, OURS, is_installed, user_file, with_parents
from lth_core.seeds import is_global_generator

_Parts = Callable[[Any], Iterable[tuple[str, Any]]]
_WRITTEN = (PurePath, range, slice, datetime.date, datetime.time, datetime.timedelta, np.ufunc,
            GenericAlias, UnionType, MemberDescriptorType, GetSetDescriptorType,
            MethodDescriptorType, WrapperDescriptorType)  # fmt: skip
"""Types whose `repr` says all of a value."""
_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), torch.dtype, torch.device,
          np.dtype, np.generic)  # fmt: skip
"""Types whose `repr` says all of a value that no class of the user's own has."""
_TupleField = type(vars(namedtuple("_Named", "name"))["name"])
_REDUCED = (operator.itemgetter, operator.attrgetter, operator.methodcaller,
            _TupleField)  # fmt: skip
"""Types that say how a value is made."""
_LACKED_BY_NUMPY = {getattr(torch, name) for name in dir(torch)
                    if name.startswith(("bfloat16", "float8"))}  # fmt: skip
_POINTER = struct.calcsize("P")
_digests_by_name: dict[str, dict[str, str]] = {}
"""Digests of the values of each name that a function uses, by the function's digest."""
_STRUCTURE = {"array", "bases", "class", "code", "constants", "factory", "function", "list",
              "logger", "longest", "made", "mapping", "member", "metaclass", "method", "names",
              "partial", "pattern", "property", "self", "tensor", "text"}  # fmt: skip
"""Keys of the parts of a value that are no names in a user's code."""


def factory_digest(factory: Callable[..., Any], module: ModuleType) -> str:
    """sha256 of a factory's code: of its modules with all that they import, or of the function.

    In an installed package, only the named module counts. In `__main__` the function counts, of a
    script too: the script may set a name that it uses, or define it again.

    Args:
        module: the module that a study names; another may define the factory.

    Raises:
        ValueError: a file was edited after this process imported it, or a name of it was set.
        TypeError: as `function_digest`.
    """
    if user_file(module.__name__) and _is_of_file(factory, module):
        defined = factory.func if isinstance(factory, functools.partial) else factory
        return digest_of_modules(module.__name__, str(getattr(defined, "__module__", MAIN)))
    file = getattr(module, "__file__", None)
    if file and module.__name__ != MAIN:  # a module of an installed package
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return function_digest(factory)


def function_digest(function: Callable[..., Any]) -> str:
    """sha256 of a function's code, closure, defaults and the globals that it uses, however deep.

    Raises:
        TypeError: the code uses a value whose content is not known, such as an open file.
    """
    whole, named = hashlib.sha256(), dict[str, Any]()
    for name, part in _parts(function, "", {}):
        sized = f"{len(part)}:".encode() + part
        whole.update(sized)
        named.setdefault(name.partition("[")[0], hashlib.sha256()).update(sized)
    digest = whole.hexdigest()
    _digests_by_name[digest] = {name: each.hexdigest() for name, each in named.items()}
    return digest


def changed_since(digest: str, now: str) -> str:
    """The first variable or attribute that differs between two digests of a function, or empty.

    Args:
        digest, now: results of `function_digest` in this process.
    """
    before = _digests_by_name.get(digest, {})
    changed = [n for n, part in _digests_by_name.get(now, {}).items() if before.get(n) != part]
    return changed[0] if before and changed else ""


def _parts(
    value: Any, name: str, seen: dict[int, tuple[int, object]]
) -> Iterator[tuple[str, bytes]]:
    """A value as texts in one order, each with the name of the variable or attribute it is in.

    Args:
        name: where the value is.
        seen: number of each earlier value and the value itself, by `id`; the reference keeps the id
            from being reused.
    """
    kind = type(value)
    if kind in _ATOMS or (isinstance(value, _ATOMS) and not _is_own(kind)):
        yield name, f"{kind.__name__} {value!r}".encode()
        return
    if id(value) in seen:
        yield name, f"seen {seen[id(value)][0]}".encode()
        return
    seen[id(value)] = (len(seen), value)
    yield name, kind.__name__.encode()
    if isinstance(value, (set, frozenset)):
        every = (_parts(each, name, dict(seen)) for each in value)
        yield from ((name, part) for part in sorted(b"".join(p for _, p in each) for each in every))
    for key, part in _content(value, name):
        yield name, key.encode()
        if isinstance(part, bytes):
            yield name, part
        else:
            is_named = (key.isidentifier() and key not in _STRUCTURE) or "[" in key
            yield from _parts(part, key if is_named else name, seen)


def _content(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Parts of a value, each with its name.

    Args:
        name: as for `_parts`.
    """
    kind = type(value)
    whole = _first_fit(_WHOLE, value)
    if whole:
        yield from whole(value)
        return
    if is_global_generator(value):
        return
    is_own, parts = _is_own(kind), _first_fit(_PARTS, value)
    if isinstance(value, dict):
        for i, (key, part) in enumerate(value.items()):
            yield f"key {i}", key
            yield f"{name}[{key!r}]", part
    try:
        yield from parts(value) if parts else ()
    except (NotImplementedError, RuntimeError, TypeError):  # torch has no bytes of such a tensor
        raise _unknown(value, name) from None
    if parts is None and (isinstance(value, _UNKNOWN) or _hides(value)):
        raise _unknown(value, name)
    if parts is None or is_own:
        yield "class", kind
    if parts is None or is_own or isinstance(value, torch.Tensor):
        yield from _state(value).items()


def _unknown(value: object, name: str) -> TypeError:
    return TypeError(
        f"{name or 'the function'} is a {type(value).__name__}, whose content is not known: "
        "put the function into a module of its own"
    )


def _first_fit(table: tuple[tuple[Any, _Parts], ...], value: object) -> _Parts | None:
    return next((parts for kind, parts in table if isinstance(value, kind)), None)


def _state(value: Any) -> dict[str, Any]:
    """Attributes of an instance; those of cached properties follow from others."""
    kind = type(value)
    state = (
        {f.name: getattr(value, f.name, None) for f in fields(value)} if is_dataclass(value) else {}
    )
    for slot in _slots(kind):
        if slot not in state and hasattr(value, slot):
            state[slot] = getattr(value, slot)
    state |= getattr(value, "__dict__", {})
    return {
        name: part for name, part in state.items()
        if not isinstance(getattr_static(kind, name, None), functools.cached_property)
    }  # fmt: skip


def _slots(kind: type) -> list[str]:
    """Names of the slots of a class written in Python."""
    return [
        name for each in kind.__mro__ if "__slots__" in vars(each)
        for name, part in vars(each).items() if isinstance(part, MemberDescriptorType)
    ]  # fmt: skip


def _hides(value: object) -> bool:
    """Whether a value has memory of code in C, beside attributes. Functions are known by name."""
    kind = type(value)
    pointers = len(_slots(kind)) + bool(kind.__dictoffset__) + bool(kind.__weakrefoffset__)
    most = object.__basicsize__ + pointers * _POINTER
    is_named = kind.__module__ == "typing" or "__qualname__" in getattr(value, "__dict__", {})
    return not is_named and (kind.__itemsize__ > 0 or kind.__basicsize__ > most)


def _base_text(value: Any) -> Iterable[tuple[str, Any]]:
    """A number or text of a class of the user's own, which may write itself otherwise."""
    base: Any = next(each for each in type(value).__mro__ if not _is_own(each))
    return [("text", base.__repr__(value).encode())]


def _member_content(value: Enum) -> Iterable[tuple[str, Any]]:
    """Parts of a member of an enumeration, whose class has the values that have a hash."""
    unhashed = [("constants", value.value)] if value.value.__hash__ is None else []
    return [("member", (type(value), value.name)), *unhashed]


def _deque_content(value: deque[Any]) -> Iterable[tuple[str, Any]]:
    return [("list", list(value)), *([("longest", value.maxlen)] if value.maxlen else [])]


def _tensor_content(value: torch.Tensor) -> Iterator[tuple[str, Any]]:
    """Parts of a dense tensor; of a type that numpy lacks, the bytes."""
    values = value.detach().cpu()
    if value.dtype in _LACKED_BY_NUMPY:
        yield "dtype", f"{value.dtype} {tuple(value.shape)}".encode()
        values = values.contiguous().flatten().view(torch.uint8)
    yield "tensor", values.numpy()
    if value.requires_grad != isinstance(value, torch.nn.Parameter):
        yield "requires_grad", value.requires_grad


def _bound_to(value: Any) -> Iterator[tuple[str, Any]]:
    """The object of a builtin method, but for generators that the seed decides."""
    owner = getattr(value, "__self__", None)
    if owner is None or isinstance(owner, ModuleType) or is_global_generator(owner):
        return
    if not isinstance(owner, type) or _is_own(owner):
        yield "self", owner


def _array_content(value: Any) -> Iterable[tuple[str, Any]]:
    """Parts of an array; of one of objects, each object."""
    head = f"{value.dtype} {value.shape}"
    is_of_objects = value.dtype.hasobject
    return [("array", value.tolist() if is_of_objects else head.encode() + value.tobytes())]


def _code_content(value: Any) -> Iterator[tuple[str, Any]]:
    """Parts of a module, a class, a function or its code; installed ones are known by name."""
    if isinstance(value, ModuleType):
        yield value.__name__, module_digest(value) if user_file(value.__name__) else ""
        return
    if isinstance(value, CodeType):
        yield "code", value.co_code
        yield "names", (value.co_name, value.co_names, value.co_varnames, value.co_flags)
        yield "constants", value.co_consts
        if value.co_exceptiontable and not is_installed(value.co_filename):
            yield "exceptions", value.co_exceptiontable
        return
    module = sys.modules.get(str(value.__module__))
    if module and user_file(module.__name__) and _is_of_file(value, module):
        yield f"{value.__module__}.{value.__qualname__}", module_digest(module)
    elif _is_known(value, module):
        yield f"{value.__module__}.{value.__qualname__}", b""
        yield from _bound_to(value)
    elif isinstance(value, type):
        yield "bases", value.__bases__
        if _is_own(type(value)):
            yield "metaclass", type(value)
        yield from ((key, part) for key, part in vars(value).items() if key not in _IGNORED)
    else:
        yield "function", (value.__code__, value.__defaults__, value.__kwdefaults__)
        closure = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((f"closure {n}", _cell(c)) for n, c in closure)
        used = sorted(set(globals_of(value.__code__)) & value.__globals__.keys())
        yield from ((each, value.__globals__[each]) for each in used)
        yield from _attributes_of(value).items()
        imported = sorted(set(_imports_of(value.__code__, value.__globals__.get("__package__"))))
        yield from ((each, digest_of_modules(each).encode()) for each in imported)


def _attributes_of(function: FunctionType) -> dict[str, Any]:
    """Attributes that a function was given; of those that functools sets, the registry."""
    attributes = vars(function)
    if "registry" in attributes and "dispatch" in attributes:
        return {"registry": attributes["registry"]}
    return {name: part for name, part in attributes.items() if name != "__wrapped__"}


_WHOLE: tuple[tuple[Any, _Parts], ...] = (
    ((ModuleType, CodeType, type, FunctionType, BuiltinFunctionType), _code_content),
    (functools.partial, lambda value: [("partial", (value.func, value.args, value.keywords))]),
    (MethodType, lambda value: [("method", (value.__self__, value.__func__))]),
    ((staticmethod, classmethod), lambda value: [("function", value.__func__)]),
    (property, lambda value: [("property", (value.fget, value.fset))]),
    (functools.cached_property, lambda value: [("function", value.func)]),
    (functools._lru_cache_wrapper, lambda value: [("function", value.__wrapped__)]),
    (MappingProxyType, lambda value: [("mapping", dict(value))]),
    (re.Pattern, lambda value: [("pattern", (value.pattern, value.flags))]),
    (Enum, _member_content),
    (logging.Logger, lambda value: [("logger", value.name)]),
    (_REDUCED, lambda value: [("made", value.__reduce__())]),
)
"""Parts of values by their type, the first that fits. Nothing else counts of such a value."""
_PARTS: tuple[tuple[Any, _Parts], ...] = (
    (_ATOMS, _base_text),
    ((list, tuple), lambda value: ((str(i), part) for i, part in enumerate(value))),
    (torch.Tensor, _tensor_content),
    (np.ndarray, _array_content),
    (deque, _deque_content),
    (defaultdict, lambda value: [("factory", value.default_factory)]),
    ((dict, set, frozenset), lambda value: ()),
    (BaseException, lambda value: [("list", value.args)]),
    (_WRITTEN, lambda value: [("text", repr(value))]),
)
"""Parts of values by their type, the first that fits. What a class of the user's own adds counts
too."""
_UNKNOWN = (io.IOBase, type(os.environ))
"""Types whose attributes do not say what a value contains, or change."""
_IGNORED = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__",
            "__static_attributes__", "__abstractmethods__", "_abc_impl", "__annotations__",
            "__annotate_func__", "__annotations_cache__", "__parameters__", "__orig_bases__",
            "__dataclass_fields__", "__dataclass_params__", "__match_args__"}  # fmt: skip
"""Attributes of a class without effect on its behaviour."""


def _cell(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _imports_of(code: CodeType, package: str | None) -> Iterator[str]:
    """Names of the user's modules that code and the functions inside it import."""
    for inner in nested_codes(code):
        if "import_module" in inner.co_names:
            yield from (c for c in inner.co_consts if isinstance(c, str) and c and user_file(c))
        every = dis.get_instructions(inner)
        instructions = [each for each in every if each.opname != "EXTENDED_ARG"]
        for i, instruction in enumerate(instructions):
            if instruction.opname == "IMPORT_NAME":
                level = instructions[i - 2].argval
                if level and not package:  # the import would fail
                    continue
                base = importlib.util.resolve_name("." * level + instruction.argval, package)
                names = list(with_parents([base]))
                names += [f"{base}.{name}" for name in instructions[i - 1].argval or ()]
                yield from (name for name in names if user_file(name))


def _is_of_file(value: object, module: ModuleType) -> bool:
    """Whether a value of a module comes from the module's file, and was not typed in later."""
    if not isinstance(value, FunctionType) or value.__module__ != module.__name__:
        return True
    return Path(value.__code__.co_filename).resolve() == user_file(module.__name__)


def _is_own(kind: type) -> bool:
    """Whether a class is the user's own."""
    return not _is_known(kind, sys.modules.get(kind.__module__))


def _is_known(value: object, module: ModuleType | None) -> bool:
    """Whether a class or function comes from Python or an installed package."""
    if module is None or isinstance(value, BuiltinFunctionType):
        return isinstance(value, BuiltinFunctionType)
    file = getattr(module, "__file__", None)
    return module.__name__ != MAIN and (
        module.__name__.partition(".")[0] in OURS or file is None or is_installed(str(file))
    )
