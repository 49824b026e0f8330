"""The table of columns against the records, measures and schema that are made from it."""

from collections.abc import Iterator
from dataclasses import replace

import jsonschema
import pytest

from lth_core import PruneSpec, TicketSpec, Trainer, find_tickets
from lth_core.columns import (
    COLUMNS,
    OBJECTIVES,
    Record,
    charts,
    descriptions,
    in_order,
    record_schema,
)
from lth_core.jobs.recipes import Measure
from lth_core.results import LevelResult

TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict}


@pytest.fixture(scope="module")
def levels(small: TicketSpec) -> list[LevelResult]:
    branches = ("ticket", "reinit", "twin")
    spec = replace(small, branches=branches, predictors=True, levels=1)
    structured = replace(small, prune=PruneSpec(structure="neurons"), levels=1)
    trainer = Trainer()
    return [*find_tickets(spec, trainer), *find_tickets(structured, trainer)]


@pytest.fixture(scope="module")
def rows(levels: list[LevelResult]) -> list[Record]:
    return [row for level in levels for row in level.records]


def columns_of(source: str) -> set[str]:
    return {name for name, column in COLUMNS.items() if column.source == source}


def measures(kind: type[Measure] = Measure) -> Iterator[type[Measure]]:
    for each in kind.__subclasses__():
        if each.__module__.startswith("lth_core."):
            yield each
        yield from measures(each)


@pytest.mark.slow
def test_every_record_has_the_columns_of_its_training(rows: list[Record]) -> None:
    assert all(columns_of("training") <= row.keys() for row in rows)


@pytest.mark.slow
def test_records_have_no_column_but_those_of_the_table(rows: list[Record]) -> None:
    assert set().union(*rows) == columns_of("training") | columns_of("measure")


def test_values_are_of_the_type_that_the_table_states(rows: list[Record]) -> None:
    for row in rows:
        for name, value in row.items():
            column = COLUMNS[name]
            may_be_none = column.source == "measure" and value is None
            assert may_be_none or isinstance(value, TYPES[column.type]), name


def test_measured_columns_are_those_that_measures_give() -> None:
    given = [name for measure in measures() for name in measure.columns]
    assert len(given) == len(set(given))
    assert set(given) == columns_of("measure")


def test_records_are_in_the_tables_order_and_other_columns_come_last(rows: list[Record]) -> None:
    order = list(COLUMNS)
    for row in rows:
        assert list(row) == sorted(row, key=order.index)
    assert list(in_order({"width": 1, "level": 2, "seed": 3})) == ["seed", "level", "width"]


def test_objectives_are_numbers_that_every_record_has() -> None:
    assert OBJECTIVES["final_test_accuracy"] == "max"
    assert OBJECTIVES["weights_kept"] == OBJECTIVES["early_stop_validation_loss"] == "min"
    assert OBJECTIVES.keys() <= columns_of("training")
    assert all(COLUMNS[name].type in ("integer", "number") for name in OBJECTIVES)


def test_metrics_are_numbers_and_each_has_a_chart_of_its_own() -> None:
    named = {**charts("level"), **charts("branch"), **charts("branch", study=True)}
    assert named == {name: column.chart for name, column in COLUMNS.items() if column.chart}
    assert all(COLUMNS[name].type in ("integer", "number") for name in named)
    assert len(set(named.values())) == len(named)
    assert charts("level")["density"] == "density"
    assert charts("branch")["final_test_accuracy"] == "accuracy"
    assert charts("branch", study=True)["overlap_seeds"] == "overlap_seeds"


def test_description_states_the_unit() -> None:
    about = dict(descriptions())
    assert about.keys() == COLUMNS.keys()
    assert about["train_seconds"] == "duration of the training (s)"


def test_schema_requires_what_every_record_has(rows: list[Record]) -> None:
    schema = record_schema()
    assert schema["properties"].keys() == COLUMNS.keys()
    assert set(schema["required"]) == columns_of("training")
    assert schema["properties"]["density"]["type"] == "number"
    assert schema["properties"]["test_barrier"]["type"] == ["number", "null"]
    for row in rows:
        jsonschema.validate(row, schema)
    with pytest.raises(jsonschema.ValidationError, match="'many' is not of type 'integer'"):
        jsonschema.validate({**rows[0], "weights_kept": "many"}, schema)
