"""Reader of studies: YAML and overrides to checked values; every error names the field's path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lth_core.errors import SpecError, nearest
from lth_core.spec import PruneBase, TicketSpec, with_implied
from lth_core.spec.prune import PRUNE_DEFAULTS, PRUNING, fields_of_when
from sweeps.studies.schema import Study
from sweeps.studies.yaml_loader import load_yaml, read_yaml

_NOT_WRITTEN = re.compile(r"list\[.*\]|function-after\[.*Range\]|\[key\]|int|float|str|bool")
"""Parts of a path that pydantic adds for the members of a union; a user did not write them."""

LONGEST_SHOWN = 80
"""Largest number of characters of a value that an error shows as it should be written."""

SPEC_PARTS: dict[str, Any] = {
    name: kind
    for name, kind in get_type_hints(TicketSpec).items()
    if is_dataclass(kind) or any(map(is_dataclass, get_args(kind)))
}
"""Classes of a spec's parts, by field; that of `prune` is a union."""


def read_study(path: Path, overrides: Sequence[str] = (), *, swept: bool = False) -> Study:
    """A study from its file, with ``field=value`` overrides applied.

    Args:
        swept: whether the file was written by a sweep, which may be an older version's.

    Raises:
        SpecError: the file is too large or not YAML, or a field is wrong; names the field's path.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise SpecError(str(path), "must be a mapping with the study's fields", content)
    search = content.get("search")
    if swept and isinstance(search, dict) and search.get("algorithm") == "optuna":
        search.setdefault("objective", "final_test_accuracy")  # an older version's default
    for override in overrides:
        _override(content, override)
    return parse_study(content)


def parse_study(content: Mapping[str, Any]) -> Study:
    """A study from plain values.

    Raises:
        SpecError: the first wrong field.
    """
    values = dict(content)
    search = values.get("search")
    _check_dotted("axes", values.get("axes"))
    _check_dotted("search.space", search.get("space") if isinstance(search, Mapping) else None)
    _check_nested(values.get("base"))
    _check_booleans("", values)
    if isinstance(base := values.get("base"), dict):
        values["base"] = _with_prune(base, "base.prune")
    study: Study = _checked(TypeAdapter(Study), values)
    return study


def parse_spec(values: Mapping[str, Any]) -> TicketSpec:
    """A spec from plain values.

    Raises:
        SpecError: the first wrong field.
    """
    spec: TicketSpec = _checked(_spec_adapter(), _with_prune(values, "prune"))
    return spec


def parse_stored_spec(values: Mapping[str, Any]) -> TicketSpec:
    """A spec from the plain values of a store's entry, which an older version may have written.

    Raises:
        SpecError: the first wrong field.
    """
    return parse_spec(with_implied(TicketSpec, values))


def parse_part(part: str, values: Mapping[str, Any]) -> object:
    """A part of a spec, such as ``prune``, from plain values; `parse_spec` accepts it.

    Raises:
        SpecError: the first wrong field, named within the part.
    """
    if part == "prune":
        fields = fields_of_when(values)
        return _checked(_prune_adapter(fields["when"]), fields)
    return _checked(_part_adapter(part), dict(values))


def _check_dotted(path: str, axes: Any) -> None:
    """Check that axes name fields with dots, where a mapping is a range.

    Raises:
        SpecError: a mapping of fields has the name of a part of a spec; says what to write.
    """
    for name, value in axes.items() if isinstance(axes, Mapping) else ():
        if fields := dict(_nested(name, value)) if isinstance(value, Mapping) else {}:
            written = ", ".join(
                f"`{field}: {_flow(inner if isinstance(inner, (list, Mapping)) else [inner])}`"
                for field, inner in fields.items()
            )
            raise SpecError(f"{path}.{name}", f"must be written with dots: {written}", value)


def _check_booleans(path: str, value: Any) -> None:
    """Check that only fields that are yes or no are: pydantic would take them for 1 and 0.

    Raises:
        SpecError: another one is.
    """
    if isinstance(value, bool) and path.rpartition(".")[2] not in _boolean_fields():
        raise SpecError(path, "must not be yes or no (true, false, on, off)", value)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_booleans(f"{path}.{name}" if path else str(name), inner)
    elif isinstance(value, list):
        for inner in value:
            _check_booleans(path, inner)


@cache
def _boolean_fields() -> set[str]:
    """Names of the fields of a study or spec that are yes or no, or may be."""

    def named(schema: Any) -> Iterator[str]:
        for key, inner in schema.items() if isinstance(schema, dict) else ():
            if key == "properties":
                yield from (name for name, field in inner.items() if "'boolean'" in str(field))
            yield from named(inner)

    return set(named(TypeAdapter(Study).json_schema())) | set(named(_spec_adapter().json_schema()))


def _check_nested(base: Any) -> None:
    """Check that a base spec nests its fields.

    Raises:
        SpecError: a field's name has dots; says what to write.
    """
    for name, value in base.items() if isinstance(base, Mapping) else ():
        part, _, field = str(name).partition(".")
        if name in spec_fields() and field:
            written = f"`{part}: {{{field}: {_flow(value)}}}`"
            raise SpecError(f"base.{name}", f"must be written without a dot: {written}", value)


def _nested(name: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted fields and values of a mapping for a part of a spec; none for other names."""
    inside = [field for field in spec_fields() if field.startswith(f"{name}.")]
    if (inside or name == "prune.layer_fractions") and isinstance(value, Mapping):
        for field, inner in value.items():
            dotted = f"{name}.{field}"
            yield from list(_nested(dotted, inner)) or [(dotted, inner)]


def _flow(value: Any) -> str:
    """A value in YAML's flow style, or `...` for a long one."""
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= LONGEST_SHOWN else "..."


def _with_prune(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The plain values of a spec, with `prune` as a spec: its ``when`` decides its fields."""
    if "prune" not in values or isinstance(values["prune"], PruneBase):
        return dict(values)
    if not isinstance(values["prune"], Mapping):
        raise SpecError(path, "must be a dictionary", values["prune"])
    try:
        return {**values, "prune": parse_part("prune", values["prune"])}
    except SpecError as error:
        raise error.under(path) from None


def spec_values(spec: TicketSpec) -> dict[str, Any]:
    """A spec as plain values for ``parse_spec``.

    They include root and download, and the defaults of all fields of `prune`, so that another
    ``when`` can be set.
    """
    values: dict[str, Any] = _spec_adapter().dump_python(spec, mode="json")
    values["prune"] = {**PRUNE_DEFAULTS, **values["prune"]}
    return values


@cache
def spec_fields() -> tuple[str, ...]:
    """Every dotted field of a spec that a study may set; `lth_core` sets the others."""
    values = spec_values(TicketSpec())
    for part, name in (("data", "fingerprint"), ("model", "fingerprint"), ("model", "gates")):
        del values[part][name]
    return tuple(_dotted("", values))


def read_values(option: str, text: str) -> list[Any]:
    """The values of ``0.2,0.5`` or ``[ticket],[ticket, reinit]``, as in a study file.

    Raises:
        SpecError: the text is too large or not YAML; names the option.
    """
    values: list[Any] = load_yaml(option, f"[{text}]", "must have YAML values", text)
    return values


def _parts(field: str) -> list[str]:
    """Parts of a dotted field; a layer's name, which may have dots, is one of them."""
    before, found, layer = field.partition(".layer_fractions.")
    return [*before.split("."), "layer_fractions", layer] if found else field.split(".")


def set_field(values: dict[str, Any], field: str, value: Any) -> None:
    """Set a dotted field of nested mappings; missing mappings are made."""
    *parents, last = _parts(field)
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise SpecError(field, f"cannot be set: {parent} is no mapping", inner)
        values = inner
    values[last] = value


def get_field(values: Mapping[str, Any], field: str, path: str) -> Any:
    """A dotted field of nested mappings.

    Raises:
        SpecError: it is missing, so the axis at ``path`` may not omit it.
    """
    value: Any = values
    for part in _parts(field):
        if not isinstance(value, Mapping) or part not in value:
            raise SpecError(path, f"must set {field} in each of its values, or base must", None)
        value = value[part]
    return value


def _dotted(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _dotted(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}"


def _override(content: dict[str, Any], override: str) -> None:
    field, equals, text = override.partition("=")
    if not equals or not field:
        raise SpecError(override, "an override must read field=value", override)
    value = load_yaml(field, text, "must have a YAML value", text)
    axes, base = (content.setdefault(part, {}) for part in ("axes", "base"))
    if not isinstance(axes, dict) or not isinstance(base, dict):
        return  # `parse_study` reports it
    field = field.removeprefix("base.")
    head, _, rest = field.partition(".")
    if head == "axes" and rest:
        axes[rest] = value
    elif field in axes and isinstance(value, (list, dict)):
        axes[field] = value
    elif head in Study.model_fields:
        set_field(content, field, value)
    else:
        # A field with one value is no axis, and no part of an axis of mappings.
        axes.pop(field, None)
        search = content.get("search")
        space = search.get("space") if isinstance(search, dict) else None
        if isinstance(space, dict):
            space.pop(field, None)
        for name, values in axes.items():
            if isinstance(values, list) and name not in spec_fields():
                axes[name] = [_without(field, point) for point in values]
        set_field(base, field, value)


def _without(field: str, point: Any) -> Any:
    """A value of an axis; a mapping loses the field."""
    return {k: v for k, v in point.items() if k != field} if isinstance(point, dict) else point


@cache
def _part_adapter(part: str) -> TypeAdapter[Any]:
    return TypeAdapter(SPEC_PARTS[part])


@cache
def _prune_adapter(when: str) -> TypeAdapter[Any]:
    return TypeAdapter(PRUNING[when])


@cache
def _spec_adapter() -> TypeAdapter[TicketSpec]:
    return TypeAdapter(TicketSpec)


def _checked(adapter: TypeAdapter[Any], values: dict[str, Any]) -> Any:
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise _first_error(adapter, error) from None


def _first_error(adapter: TypeAdapter[Any], error: ValidationError) -> SpecError:
    """Pydantic's first error as a SpecError: path, rule, value, known values."""
    errors = error.errors(include_url=False)
    first = errors[0]
    if first["type"] == "list_type" and isinstance(first["input"], dict) and len(errors) > 1:
        first = errors[1]  # where a list or a range may stand, a mapping was meant as a range
    parts = [str(part) for part in first["loc"] if not _NOT_WRITTEN.fullmatch(str(part))]
    path = ".".join(parts)
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, SpecError):
        full = ".".join(part for part in (path, inner.field) if part)
        return SpecError(full, inner.rule, inner.got, inner.known, inner.meant)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _siblings(adapter, parts)
        meant = nearest(parts[-1], known) or nearest(parts[-1], spec_fields())
        return SpecError(path, "is not a known field", first["input"], known, meant)
    if first["type"] in ("missing", "missing_argument"):
        return SpecError(path, "must be given", None)
    rule = first["msg"].replace("Input should be", "must be")
    rule = rule[0].lower() + rule[1:]
    field = path.removeprefix("base.")
    if isinstance(first["input"], list) and field in spec_fields():
        rule += f"; several values are an axis, `axes.{field}`"
    return SpecError(path, rule, first["input"])


def _siblings(adapter: TypeAdapter[Any], parts: list[str]) -> list[str]:
    """Names of the known fields beside a path's field."""
    root = adapter.json_schema()
    schema = root
    for part in ["", *parts[:-1]]:
        # The schema of the values of a mapping with free names, or of a list.
        inner = schema.get("additionalProperties") or schema.get("items") or {}
        schema = schema.get("properties", {}).get(part, inner if part else schema)
        for reference in (schema, *schema.get("allOf", ()), *schema.get("anyOf", ())):
            if "$ref" in reference:
                schema = root["$defs"][reference["$ref"].rpartition("/")[2]]
    return list(schema.get("properties", {}))
