"""Descriptions of everything that a study file can name, for `lth list`.

They come from the source of `lth_core`: importing its tables would import torch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import lth_core
from lth_core.columns import descriptions
from lth_core.spec import TicketSpec

FILLED_IN = ("data.fingerprint", "model.fingerprint", "model.gates")
"""Fields that `lth_core` sets, never a study file."""

OWN_SCORE = "your own: a function from lth_core.prune.PrunableNetwork to scores by parameter name"
OWN_DATA = "your own: a function from DataSpec to lth_core.data.Dataset"
OWN_MODEL = "your own: a function of (ModelSpec, shape, classes)"


def _datasets() -> dict[str, str]:
    named = table("lth_core.data", "DATASETS")
    folder = (
        "images in PATH/train/CLASS/*, PATH/test/CLASS/* and, if there, PATH/validation/CLASS/*"
    )
    return {**named, "folder:PATH": folder, "package.module:factory": OWN_DATA}


def _models() -> dict[str, str]:
    return {**table("lth_core.models", "MODELS"), "package.module:factory": OWN_MODEL}


def _scores() -> dict[str, str]:
    learned = table("lth_core.train.masking.registry", "LEARN")
    shipped = table("lth_core.prune.scores", "SCORES")
    return {**shipped, **learned, "package.module:function": OWN_SCORE}


def _fields() -> dict[str, str]:
    rows = dict[str, str]()
    kinds = get_type_hints(TicketSpec)
    for name, text in _attribute_docs(TicketSpec).items():
        parts = [part for part in (kinds[name], *get_args(kinds[name])) if is_dataclass(part)]
        if not parts:
            rows[name] = text
        for part in parts:
            for field, description in _attribute_docs(part).items():
                rows.setdefault(f"{name}.{field}", description)
    return {name: text for name, text in rows.items() if name not in FILLED_IN}


CATALOGUE: dict[str, Callable[[], dict[str, str]]] = {
    "datasets": _datasets,
    "models": _models,
    "when": lambda: table("lth_core.jobs.methods", "WHEN"),
    "scores": _scores,
    "scopes": lambda: table("lth_core.prune.scope", "SCOPES"),
    "structures": lambda: table("lth_core.prune.structure", "STRUCTURES"),
    "grow": lambda: table("lth_core.train.masking.registry", "GROW"),
    "schedules": lambda: table("lth_core.prune.schedules", "SCHEDULES"),
    "branches": lambda: table("lth_core.jobs.branches", "BRANCHES"),
    "fields": _fields,
    "columns": lambda: dict(descriptions()),
}
"""The function that lists each kind: descriptions by name."""


def table(module: str, name: str) -> dict[str, str]:
    """Keys of a dict display in a module's source, with descriptions.

    A value's description is the first string in it, or the first paragraph of the docstring of
    the function or class that it names; of a call, its first argument.
    """
    display = _definition(module, name)
    assert isinstance(display, ast.Dict), f"{module}.{name} must be written as a dict display"
    rows = zip(display.keys, display.values, strict=True)
    return {ast.literal_eval(key): _description(module, value) for key, value in rows if key}


def _description(module: str, value: ast.AST) -> str:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
    reference = value.args[0] if isinstance(value, ast.Call) else value
    named = _definition(module, ast.unparse(reference))
    assert isinstance(named, ast.FunctionDef | ast.ClassDef)
    return " ".join((ast.get_docstring(named) or "").partition("\n\n")[0].split())


def _definition(module: str, name: str) -> ast.AST:
    """The function, class or assigned value of a name, through the imports of its module."""
    head, _, attribute = name.partition(".")
    for node in _tree(module).body:
        match node:
            case ast.FunctionDef() | ast.ClassDef() if node.name == name:
                return node
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.AST() as value) if (
                target == name
            ):
                return value
            case ast.ImportFrom(module=str(source), names=names):
                for alias in names:
                    if (alias.asname or alias.name) == head and attribute:
                        return _definition(f"{source}.{alias.name}", attribute)
                    if (alias.asname or alias.name) == head:
                        return _definition(source, alias.name)
    raise LookupError(f"{module} does not define {name}")


@cache
def _tree(module: str) -> ast.Module:
    path = Path(lth_core.__file__).parents[1].joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text())


def _attribute_docs(spec: Any) -> dict[str, str]:
    """The docstring under each field of a spec, those of its base first."""
    texts, names = dict[str, str](), {field.name for field in fields(spec)}
    for kind in reversed(spec.__mro__):
        if kind.__module__.startswith("lth_core."):
            definition = _definition(kind.__module__, kind.__name__)
            assert isinstance(definition, ast.ClassDef)
            for node, following in pairwise(definition.body):
                match node, following:
                    case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(
                        value=ast.Constant(value=str(text))
                    ):
                        texts[field] = " ".join(text.split())
    return {name: text for name, text in texts.items() if name in names}
