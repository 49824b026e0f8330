"""The study file: YAML read into checked values, every error with the field's path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from lth_core.errors import SpecError
from lth_core.spec import TicketSpec, describe, sha256

DIRECTIONS: dict[str, Literal["max", "min"]] = {
    "final_test_accuracy": "max",
    "early_stop_test_accuracy": "max",
    "early_stop_validation_loss": "min",
    "early_stop_step": "min",
    "density": "min",
    "weights_kept": "min",
    "flops": "min",
    "steps": "min",
    "train_seconds": "min",
}
"""Record fields that a search can optimize, and which way is better."""

MOST_VALUES = 100_000
"""Of a range: more is a slip of the pen, and would fill the memory."""

_ENDING = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_NOT_WRITTEN = re.compile(r"list\[any\]|function-after\[.*Range\]|\[key\]")
"""What pydantic adds to a path for the arms of a union; what a user wrote is what counts."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 2e-4 is a number, as in YAML 1.2, and no text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+"),
    list("-+0123456789"),
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Range(_Part):
    """Numbers from low to high: `count` or `step` spaces them; without either, any number."""

    low: FiniteFloat
    high: FiniteFloat
    count: Annotated[int, Field(ge=2, le=MOST_VALUES)] | None = None
    """How many values, ends included."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Distance between values."""
    log: bool = False
    """Space or sample on a logarithmic scale."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.high < self.low:
            raise SpecError("high", f"must not be below low, {self.low:g}", self.high)
        if self.log and self.low <= 0:
            raise SpecError("low", "must be above 0 on a logarithmic scale", self.low)
        if self.step and (self.high - self.low) / self.step > MOST_VALUES:
            raise SpecError("step", f"must give at most {MOST_VALUES} values", self.step)
        return self

    def values(self) -> list[float]:
        """The spaced values; whole numbers where low, high and step are.

        Raises:
            SpecError: nothing spaces them.
        """
        if self.count:
            ratio = [index / (self.count - 1) for index in range(self.count)]
            if self.log:
                return [self.low * (self.high / self.low) ** share for share in ratio]
            return [_whole(self.low + (self.high - self.low) * share) for share in ratio]
        if self.step is None:
            raise SpecError("", "needs count or step on a grid", self.model_dump(exclude_none=True))
        steps = int((self.high - self.low) / self.step + 1e-9)
        return [_whole(round(self.low + index * self.step, 12)) for index in range(steps + 1)]


Axis = list[Any] | Range
"""Values of a field; a list of mappings varies several fields together, under a name of its own."""


class Search(_Part):
    """How cells are chosen."""

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    """grid: the product of the axes; random, optuna (TPE): samples of `space`, on every cell."""
    trials: Annotated[int, Field(ge=1)] = 20
    """Samples of space."""
    objective: dict[str, Literal["max", "min"]] = {"final_test_accuracy": "max"}
    """Record field of the last level's ticket, mean over the cells; two make a Pareto front."""
    space: dict[str, Axis] = {}
    """Dotted fields and what is sampled: a list of choices or a range."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the samples."""

    @field_validator("objective", mode="before")
    @classmethod
    def _directed(cls, said: Any) -> Any:
        names = [said] if isinstance(said, str) else said
        if isinstance(names, list):
            said = {str(name): DIRECTIONS.get(str(name), "max") for name in names}
        if not isinstance(said, dict):
            raise SpecError("", "must name one record field, or two", said)
        for name in said:
            if name not in DIRECTIONS:
                raise SpecError("", "is not a record field to optimize", name, DIRECTIONS)
        if not 1 <= len(said) <= 2:
            raise SpecError("", "must name one record field, or two", list(said))
        return said


class Resources(_Part):
    """What each trial is given."""

    cpu: Annotated[float, Field(gt=0)] = 1
    """CPUs; torch gets as many threads."""
    gpu: Annotated[float, Field(ge=0)] = 0
    """GPUs; a fraction shares one."""


class Stop(_Part):
    """When a trial ends before its last level."""

    below_matching_for: Annotated[int, Field(ge=1)] | None = None
    """Levels in a row whose ticket is below the dense run by more than the tolerance."""


class Tracking(_Part):
    """Where MLflow keeps its records."""

    uri: str | None = "sqlite:///mlflow.db"
    """An SQLite file, a server's address, or null for no tracking."""


class Study(_Part):
    """One sweep file."""

    name: str
    """Names the study, its MLflow experiment and its folder: letters, digits, `.`, `_`, `-`."""
    base: TicketSpec = TicketSpec()
    """One full spec; what is not named has its default."""
    axes: dict[str, Axis] = {}
    """Dotted fields of base and their values; the grid is their product."""
    search: Search = Search()
    resources: Resources = Resources()
    stop: Stop = Stop()
    store: str = "./lth-store"
    """Folder of the result store, shared by studies."""
    tracking: Tracking = Tracking()
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Accuracy below dense that still matches; null: one dense deviation, at least 0.001."""

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not _ENDING.fullmatch(name):
            raise SpecError("", "must be letters, digits, '.', '_' or '-', at most 100", name)
        return name

    @field_validator("search", mode="before")
    @classmethod
    def _short_search(cls, said: Any) -> Any:
        return {"algorithm": said} if isinstance(said, str) else said

    def folder(self) -> Path:
        """Where the report and the search's memory go."""
        return Path("lth-studies").absolute() / self.name

    def digest(self) -> str:
        """sha256 of what decides which trials there are; how many of them, a search may extend."""
        said = {"axes": self.axes, "search": self.search}
        dumped = TypeAdapter(dict[str, Any]).dump_python(said, mode="json")
        del dumped["search"]["trials"]
        return sha256({"name": self.name, "base": describe(self.base), **dumped})


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """A study from its file, with ``field=value`` overrides applied.

    Raises:
        SpecError: the file is not YAML, or a field is wrong; names the field's path.
    """
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), "must be a readable study file", str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date's 13th month
        raise SpecError(str(path), "must be YAML", " ".join(str(error).split())) from None
    if not isinstance(said, dict):
        raise SpecError(str(path), "must be a mapping with the study's fields", said)
    for override in overrides:
        _override(said, override)
    return parse_study(said)


def parse_study(said: Mapping[str, Any]) -> Study:
    """A study from plain values.

    Raises:
        SpecError: the first wrong field.
    """
    study: Study = _checked(TypeAdapter(Study), dict(said))
    return study


def parse_spec(said: Mapping[str, Any]) -> TicketSpec:
    """A spec from plain values.

    Raises:
        SpecError: the first wrong field.
    """
    spec: TicketSpec = _checked(_spec_adapter(), dict(said))
    return spec


def spec_values(spec: TicketSpec) -> dict[str, Any]:
    """A spec as plain values that ``parse_spec`` reads: root and download too."""
    values: dict[str, Any] = _spec_adapter().dump_python(spec, mode="json")
    return values


def study_schema() -> dict[str, Any]:
    """JSON Schema of the study file, for editors."""
    return Study.model_json_schema()


@cache
def spec_fields() -> tuple[str, ...]:
    """Every dotted field of a spec."""
    values = spec_values(TicketSpec())
    for part in ("data", "model"):
        del values[part]["fingerprint"]  # filled in, not set
    return tuple(_dotted("", values))


def set_field(said: dict[str, Any], field: str, value: Any) -> None:
    """Set a dotted field of nested mappings, making those that are missing."""
    *parents, last = field.split(".")
    for parent in parents:
        inner = said.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise SpecError(field, f"cannot be set: {parent} is no mapping", inner)
        said = inner
    said[last] = value


def _dotted(prefix: str, values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _dotted(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}"


def _override(said: dict[str, Any], override: str) -> None:
    field, equals, text = override.partition("=")
    if not equals or not field:
        raise SpecError(override, "an override must read field=value", override)
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise SpecError(field, "must have a YAML value", text) from None
    axes, base = (said.setdefault(part, {}) for part in ("axes", "base"))
    if not isinstance(axes, dict) or not isinstance(base, dict):
        return  # the study's own error is the one to show
    head, _, rest = field.partition(".")
    if head == "axes" and rest:
        axes[rest] = value
    elif field in axes and isinstance(value, (list, dict)):
        axes[field] = value
    elif head in Study.model_fields:
        set_field(said, field, value)
    else:
        # One value asked for: the field is no axis any more, nor part of a bundled one.
        axes.pop(field, None)
        for name, values in axes.items():
            if isinstance(values, list) and name not in spec_fields():
                axes[name] = [_without(field, point) for point in values]
        set_field(base, field, value)


def _without(field: str, point: Any) -> Any:
    return {k: v for k, v in point.items() if k != field} if isinstance(point, dict) else point


@cache
def _spec_adapter() -> TypeAdapter[TicketSpec]:
    return TypeAdapter(TicketSpec)


def _checked(adapter: TypeAdapter[Any], said: dict[str, Any]) -> Any:
    try:
        return adapter.validate_python(said)
    except ValidationError as error:
        raise _first_error(adapter, error) from None


def _first_error(adapter: TypeAdapter[Any], error: ValidationError) -> SpecError:
    """Pydantic's first complaint in our words: path, rule, what was got, what is known."""
    found = error.errors(include_url=False)
    first = found[0]
    if first["type"] == "list_type" and isinstance(first["input"], dict) and len(found) > 1:
        first = found[1]  # a mapping where a list or a range may be was meant as a range
    parts = [str(part) for part in first["loc"] if not _NOT_WRITTEN.fullmatch(str(part))]
    path = ".".join(parts)
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, SpecError):
        full = ".".join(part for part in (path, inner.field) if part)
        return SpecError(full, inner.rule, inner.got, inner.known)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return SpecError(path, "is not a known field", first["input"], _siblings(adapter, parts))
    if first["type"] in ("missing", "missing_argument"):
        return SpecError(path, "must be given", None)
    rule = first["msg"].replace("Input should be", "must be")
    return SpecError(path, rule[0].lower() + rule[1:], first["input"])


def _siblings(adapter: TypeAdapter[Any], parts: list[str]) -> list[str]:
    """Known fields beside the one a path names."""
    schema = adapter.json_schema()
    where = schema
    for part in ["", *parts[:-1]]:
        inside = where.get("additionalProperties") or {}  # of a mapping with names of its own
        where = where.get("properties", {}).get(part, inside if part else where)
        for reference in (where, *where.get("allOf", ()), *where.get("anyOf", ())):
            if "$ref" in reference:
                where = schema["$defs"][reference["$ref"].rpartition("/")[2]]
    return list(where.get("properties", {}))


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
