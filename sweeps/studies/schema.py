"""Schema of the study file: fields, ranges, meanings."""

from __future__ import annotations

import re
from decimal import Decimal
from math import isfinite, ulp
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PrivateAttr,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import OBJECTIVES
from lth_core.errors import SpecError
from lth_core.redaction import without_login
from lth_core.spec import PruneBase, TicketSpec, canonical_json, describe, sha256
from lth_core.spec.fields import check_pack
from lth_core.spec.prune import PRUNING
from lth_core.store import check_place
from tracking.publish.client import address_fault

MOST_VALUES = 100_000
"""Largest number of values of a range: more is a mistake, and would fill the memory."""

_POINTS = re.compile(r"\s*(\d{1,3}(?:\.\d{1,9})?)\s*points?\s*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Range(_Part):
    """Numbers from low to high: spaced by `count` or `step`; without either, any number."""

    low: FiniteFloat
    high: FiniteFloat
    count: Annotated[int, Field(ge=2, le=MOST_VALUES)] | None = None
    """Number of values, ends included."""
    step: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """Distance between values."""
    log: bool = False
    """Space or sample on a logarithmic scale."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.high < self.low:
            raise SpecError("high", f"must not be below low, {self.low:g}", self.high)
        if self.step and (self.count or self.log):
            other = "count" if self.count else "log"
            raise SpecError("step", f"must not be given beside {other}", self.step)
        if self.log and self.low <= 0:
            raise SpecError("low", "must be above 0 on a logarithmic scale", self.low)
        if not isfinite(self.high / self.low if self.log else self.high - self.low):
            raise SpecError(
                "high", f"must be at a finite distance from low, {self.low:g}", self.high
            )
        if self.step and (self.high - self.low) / self.step > MOST_VALUES:
            raise SpecError("step", f"must give at most {MOST_VALUES} values", self.step)
        return self

    def values(self) -> list[float]:
        """The spaced values; whole numbers where low, high and step are.

        Raises:
            SpecError: neither count nor step is given.
        """
        if self.count:
            ratio = [index / (self.count - 1) for index in range(self.count)]
            if self.log:
                spaced = [self.low * (self.high / self.low) ** share for share in ratio]
                # Rounding errors of powers go: 0.01, not 0.009999999999999998.
                return [_whole(float(f"{value:.12g}")) for value in spaced]
            width = self.high - self.low
            spaced = [self.low + width * share for share in ratio]
            # 12.999999999999998 is 13. Other values stay: they are in the digests of trials.
            error = 4 * ulp(max(abs(self.low), abs(self.high)))
            return [_whole(round(v) if abs(round(v) - v) <= error else v) for v in spaced]
        if self.step is None:
            raise SpecError("", "needs count or step on a grid", self.model_dump(exclude_none=True))
        steps = int((self.high - self.low) / self.step + 1e-9)
        return [self.rounded(self.low + index * self.step) for index in range(steps + 1)]

    @staticmethod
    def rounded(value: float) -> float:
        """A value without the rounding errors of steps: 0.3, not 0.30000000000000004."""
        return _whole(round(value, 12))


def _plain(value: Any) -> Any:
    try:
        canonical_json(value)
    except (ValueError, TypeError, RecursionError):
        raise SpecError("", "must be text, finite numbers, lists and mappings", value) from None
    return value


Plain = Annotated[Any, AfterValidator(_plain)]
"""Any value that JSON can express: it enters digests and the store."""

Axis = list[Plain] | Range
"""Values of a field. A list of mappings varies several fields together, under a free name."""


class Search(_Part):
    """Choice of the combinations that are run."""

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    """grid: the product of the axes; random, optuna (TPE): samples of `space`, each
    with every combination of the axes."""
    trials: Annotated[int, Field(ge=1, le=MOST_VALUES)] = 20
    """Number of samples of `space`."""
    objective: dict[str, Literal["max", "min"]] = {"final_test_accuracy": "max"}
    """optuna: record field of the last level's ticket, mean over the trials; two give a Pareto
    front. By default final_validation_accuracy, because what is chosen by the test examples is not
    judged by them."""
    space: dict[str, Axis] = {}
    """Dotted fields and the values to sample: a list of choices or a range."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of the samples."""

    @model_validator(mode="before")
    @classmethod
    def _default_objective(cls, values: Any) -> Any:
        # Not the field's default, which is in the digests of grids that an older version swept.
        if isinstance(values, dict) and values.get("algorithm") == "optuna":
            return {"objective": "final_validation_accuracy", **values}
        return values

    @field_validator("objective", mode="before")
    @classmethod
    def _with_directions(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if isinstance(names, list):
            value = {str(name): OBJECTIVES.get(str(name), "max") for name in names}
        if not isinstance(value, dict):
            raise SpecError("", "must name one record field, or two", value)
        for name in value:
            if name not in OBJECTIVES:
                raise SpecError("", "is not a record field to optimize", name, OBJECTIVES)
        if not 1 <= len(value) <= 2:
            raise SpecError("", "must name one record field, or two", list(value))
        return value


class Resources(_Part):
    """CPUs and GPUs of each trial, or of each pack of trials."""

    cpu: Annotated[FiniteFloat, Field(gt=0)] = 1
    """Number of CPUs, above 0; torch uses as many threads."""
    gpu: Annotated[FiniteFloat, Field(ge=0)] = 0
    """Number of GPUs; a fraction shares one with other trials."""
    gpu_type: str | None = None
    """Ray's name of the GPU: T4, A10G, L4, A100, H100, ...; null: any."""
    pack: int | Literal["auto"] = "auto"
    """Most trials that train together as one program: they have one network, dataset and batch
    size. `auto`: as many as the device trains fastest; on a CPU that is 1 for most networks."""
    compile: bool = False
    """Whether `torch.compile` compiles the steps of packs, and on a GPU those of single trials; its
    time is part of the trainings'."""

    @field_validator("pack", mode="before")
    @classmethod
    def _valid_pack(cls, pack: Any) -> Any:
        check_pack("", pack)
        return pack

    @field_validator("gpu_type")
    @classmethod
    def _valid_gpu_type(cls, gpu_type: str | None, info: ValidationInfo) -> str | None:
        if gpu_type is not None and not _NAME.fullmatch(gpu_type):
            raise SpecError("", "must be letters, digits, '.', '_' or '-'", gpu_type)
        if gpu_type is not None and not info.data.get("gpu"):
            raise SpecError("", "needs resources.gpu above 0", gpu_type)
        return gpu_type


class Stop(_Part):
    """Rule by which a trial ends before its last level."""

    below_matching_for: Annotated[int, Field(ge=1)] | None = None
    """Number of levels in a row with a ticket below the dense run by more than the margin. A level
    that it ends for some seeds has no verdict."""


def _fraction(value: Any) -> Any:
    """A number as it is; a text such as `0.5 points` as a fraction."""
    if isinstance(value, bool):
        raise SpecError("", "must be a number or points: 0.5 points", value)
    if isinstance(value, str) and (points := _POINTS.fullmatch(value)):
        return float(Decimal(points[1]) / 100)
    return value


class VerdictFields(_Part):
    """Margin, confidence and adjustment of verdicts, fixed before it runs: docs/verdict.md."""

    margin: Annotated[
        float,
        BeforeValidator(_fraction, json_schema_input_type=float | str),
        Field(gt=0, le=1, allow_inf_nan=False),
    ] = 0.005
    """Accuracy below dense that still matches: `0.5 points`, or a fraction, 0.005."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of each statement over all that it is adjusted for."""
    for_all: Literal["holm", "none"] = "holm"
    """Adjustment for the levels and methods that are judged together."""

    def rule(self) -> VerdictRule:
        """The rule as a value of `lth_core`."""
        return VerdictRule(**self.model_dump())


class Tracking(_Part):
    """The MLflow store of the study."""

    uri: str | None = "sqlite:///mlflow.db"
    """An SQLite file, a server's address, or null for no tracking. Other databases than SQLite need
    a server. Passwords are never part of the address."""
    curves: bool = False
    """Whether learning curves and densities of layers are metrics too, dozens a level. They are in
    each level's artifacts anyhow."""

    @field_validator("uri")
    @classmethod
    def _valid_address(cls, uri: str | None) -> str | None:
        if uri and (fault := address_fault(uri)):
            raise SpecError("", fault, without_login(uri))
        return uri


class ReferenceRow(_Part):
    """A published figure."""

    method: str
    """Name of the method in the records: imp, snip, ..."""
    density: Annotated[float, Field(gt=0, le=1)]
    """Share of the weights kept, in (0, 1]."""
    accuracy: Annotated[float, Field(ge=0, le=100)]
    """Final test accuracy, in percent."""
    branch: str = "ticket"
    where: dict[str, Plain] = {}
    """Values of further axes of the study: {rewind: 500it}."""


class Reference(_Part):
    """Published figures that `lth verify` compares with a finished study."""

    source: str
    """Publication and setting of the figures."""
    within: Annotated[float, Field(ge=0, le=100)]
    """Largest difference in test accuracy that counts as agreement, in points."""
    rows: Annotated[list[ReferenceRow], Field(min_length=1)]


class Study(_Part):
    """Content of a study file."""

    name: str
    """Name of the study, its MLflow experiment and its folder: letters, digits, `.`, `_`, `-`."""
    base: TicketSpec = TicketSpec()
    """Spec that all trials start from; omitted fields have their defaults."""
    axes: dict[str, Axis] = {}
    """Dotted fields of base and their values; the grid is their product."""
    search: Search = Search()
    resources: Resources = Resources()
    stop: Stop = Stop()
    store: str = "./lth-store"
    """Result store, shared by studies: a folder (NFS too), or s3://BUCKET/PREFIX. Keys are never
    part of the address."""
    tracking: Tracking = Tracking()
    checkpoint_minutes: Annotated[FiniteFloat, Field(gt=0)] = 5
    """Checkpoint interval in minutes; an interrupted training resumes from its checkpoint. On
    SIGTERM a training stores one at once."""
    verdict: VerdictFields = VerdictFields()
    stable_below: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Error barrier between a run and its twin, as a fraction, below which training is stable."""
    reference: Reference | None = None
    """Published figures for `lth verify`; they do not change the trainings."""
    _arguments: str = PrivateAttr("")

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        """Take the `tolerance` of a study that was swept before verdicts had a margin."""
        if not isinstance(values, dict) or "tolerance" not in values:
            return values
        values = dict(values)
        margin, verdict = values.pop("tolerance"), values.get("verdict", {})
        if margin and isinstance(verdict, dict):
            values["verdict"] = {"margin": margin, **verdict}
        return values

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise SpecError("", "must be letters, digits, '.', '_' or '-', at most 100", name)
        return name

    @field_validator("store")
    @classmethod
    def _valid_store(cls, store: str) -> str:
        check_place(store, field="")
        return store

    @field_validator("search", mode="before")
    @classmethod
    def _expanded_search(cls, value: Any) -> Any:
        return {"algorithm": value} if isinstance(value, str) else value

    def __eq__(self, other: object) -> bool:
        # However a study was named on the command line, its content decides.
        return isinstance(other, Study) and super().__eq__(other.called(self._arguments))

    @property
    def arguments(self) -> str:
        """Arguments of `lth` that name the study, with its overrides, as a shell takes them."""
        return self._arguments or self.name

    def command(self, run: str = "sweep") -> str:
        """Command that runs or resumes the study, as a shell takes it."""
        return f"lth {run} {self.arguments}"

    def called(self, arguments: str) -> Study:
        """This study, with other `arguments`."""
        copy = self.model_copy()
        copy._arguments = arguments
        return copy

    def folder(self) -> Path:
        """Folder of the report and of the search's journal."""
        return Path("lth-studies").absolute() / self.name

    def digest(self) -> str:
        """sha256 of everything that decides the trials; their number may be raised."""
        parts = {"axes": self.axes, "search": self.search}
        dumped = TypeAdapter(dict[str, Any]).dump_python(parts, mode="json")
        del dumped["search"]["trials"]
        return sha256({"name": self.name, "base": describe(self.base), **dumped})


def study_schema() -> dict[str, Any]:
    """JSON Schema of the study file, for editors."""
    schema = Study.model_json_schema()
    # Pydantic describes only a dataclass's own fields, not its base's.
    shared = TypeAdapter(PruneBase).json_schema()["properties"]
    for kind in PRUNING.values():
        schema["$defs"][kind.__name__]["properties"] |= shared
    return schema


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
