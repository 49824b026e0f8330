"""What `lth list` reads from the source is what the tables of lth_core have when imported."""

import inspect
from collections.abc import Mapping
from typing import Any

import pytest

from lth_core.columns import COLUMNS
from lth_core.data import DATASETS, NamedDataset
from lth_core.jobs.branches import BRANCHES
from lth_core.jobs.methods import WHEN
from lth_core.models import MODELS
from lth_core.prune import SCHEDULES, SCOPES, SCORES, STRUCTURES
from lth_core.train.masking.registry import GROW, LEARN
from sweeps.studies.catalogue import CATALOGUE, table
from sweeps.studies.reader import spec_fields
from sweeps.studies.schema import study_schema

TABLES: dict[str, Mapping[str, Any]] = {
    "datasets": {**DATASETS, "folder:PATH": None, "package.module:factory": None},
    "models": {**MODELS, "package.module:factory": None},
    "when": WHEN,
    "scores": {**SCORES, **LEARN, "package.module:function": None},
    "scopes": SCOPES,
    "structures": STRUCTURES,
    "grow": GROW,
    "schedules": SCHEDULES,
    "branches": BRANCHES,
    "columns": COLUMNS,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
def test_names_listed_are_those_of_the_table_in_its_order(kind: str) -> None:
    assert list(CATALOGUE[kind]()) == list(TABLES[kind])


def described(row: object) -> str:
    """A row's text, or the first paragraph of the docstring of what it names."""
    if isinstance(row, NamedDataset):
        row = row.read
    if isinstance(row, tuple):
        return next(part for part in row if isinstance(part, str))
    text = row if isinstance(row, str) else inspect.getdoc(row) or ""
    return " ".join(text.partition("\n\n")[0].split())


@pytest.mark.parametrize("kind", [kind for kind in TABLES if kind != "columns"])
def test_descriptions_listed_are_those_of_the_table(kind: str) -> None:
    listed = CATALOGUE[kind]()
    rows = {name: row for name, row in TABLES[kind].items() if row is not None}
    assert {name: listed[name] for name in rows} == {
        name: described(row) for name, row in rows.items()
    }


PARTS = {
    "": ["TicketSpec"],
    "data": ["DataSpec"],
    "model": ["ModelSpec"],
    "train": ["TrainSpec"],
    "prune": ["PruneAfter", "PruneBefore", "PruneDuring", "PruneNever", "PruneGates"],
    "stability": ["StabilitySpec"],
}
"""Definitions of the JSON Schema that have a part's fields."""


def test_fields_are_those_of_a_spec_described_as_in_the_json_schema() -> None:
    listed, definitions = CATALOGUE["fields"](), study_schema()["$defs"]
    assert set(listed) == set(spec_fields())
    for field, text in listed.items():
        part, _, name = field.rpartition(".")
        first = next(
            properties[name]
            for properties in (definitions[kind]["properties"] for kind in PARTS[part])
            if name in properties
        )
        assert text == " ".join(first["description"].split()), field


def test_kinds_of_tables_are_all_but_the_fields() -> None:
    assert set(CATALOGUE) == {*TABLES, "fields"}


def test_table_that_a_module_does_not_define_is_named() -> None:
    with pytest.raises(LookupError, match=r"lth_core\.models does not define NOWHERE"):
        table("lth_core.models", "NOWHERE")
