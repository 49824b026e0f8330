"""Pins of a study, stored with it.

From them `lth store gc` computes the digests of the study as it was swept. It neither imports the
code nor reads the data that the study names, because these may have changed since.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypedDict, cast

from lth_core.data import DATASETS
from lth_core.resolve import DataPin, Pins, find_pins
from lth_core.spec import DataSpec
from lth_core.store.decode import check
from sweeps.studies.axes import SpecReader, base_values, variants
from sweeps.studies.reader import parse_part
from sweeps.studies.schema import Study


class _Data(TypedDict):
    spec: dict[str, Any]
    fingerprint: str
    examples: int
    evaluated: int | None
    """None in a study that older code stored."""


class _Pins(TypedDict):
    data: list[_Data]
    sources: dict[str, str]
    tickets: dict[str, str] | None
    """None in a study that older code stored."""


def study_pins(study: Study) -> Pins:
    """Pins of the data, networks and scores that a study's planned trials name.

    Raises:
        SpecError: a name cannot be imported, or its code fails.
        DataError: data are absent or damaged.
    """
    base = study.base
    reader, datasets = SpecReader(base_values(study)), list[DataSpec]()
    for fields in variants(study, "data"):
        if str(fields.get("data.name", base.data.name)) not in DATASETS:
            changes = {name.removeprefix("data."): value for name, value in fields.items()}
            datasets.append(cast(DataSpec, reader.part("data", changes)))
    networks = (f.get("model.name", base.model.name) for f in variants(study, "model.name"))
    criteria = (f.get("prune.score", base.prune.score) for f in variants(study, "prune.score"))
    return find_pins(datasets, map(str, networks), map(str, criteria))


def pins_to_json(pins: Pins) -> dict[str, Any]:
    """Pins as JSON for the store; empty where a study names nothing of the user's own."""
    data = [{"spec": asdict(spec), **pin._asdict()} for spec, pin in pins.data.items()]
    return {"data": data, "sources": pins.sources, "tickets": pins.tickets}


def pins_from_json(values: Any) -> Pins:
    """Pins from the JSON of `pins_to_json`.

    Raises:
        TypeError: the JSON is malformed.
        SpecError: the spec of data is wrong.
    """
    check(values, _Pins, "pins")
    data = {
        cast(DataSpec, parse_part("data", row["spec"])): DataPin(
            row["fingerprint"], row["examples"], row.get("evaluated") or 0
        )
        for row in values["data"]
    }
    return Pins(data, values["sources"], values.get("tickets") or {})
