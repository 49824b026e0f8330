"""Records of a study as a table in one file: CSV or Parquet."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lth_core.columns import COLUMNS, Record, in_order
from lth_core.spec import canonical_json, describe

if TYPE_CHECKING:
    import pyarrow as pa


def csv_content(records: Sequence[Record]) -> bytes:
    """Records as CSV, a row each; missing values are empty, and nested ones are JSON."""
    from pyarrow import csv

    file = io.BytesIO()
    csv.write_csv(record_table(records), file)
    return file.getvalue()


def parquet_content(records: Sequence[Record]) -> bytes:
    """Records as Parquet, a row each; nested values are JSON text."""
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(record_table(records), file)
    return file.getvalue()


WRITERS: dict[str, Callable[[Sequence[Record]], bytes]] = {
    "csv": csv_content,
    "parquet": parquet_content,
}
"""Content of a file of records, by format."""


def record_table(records: Sequence[Record]) -> pa.Table:
    """Records as a table: the columns of `lth_core.columns` with their types, then the axes."""
    import pyarrow as pa

    names = in_order({name: None for record in records for name in record})
    arrays = {name: _array(name, [record.get(name) for record in records]) for name in names}
    return pa.table(arrays)


def _array(name: str, values: list[Any]) -> pa.Array:
    """Values of a column as an array of its type; of an axis, as its values are.

    Where an axis has values of several types, all are texts, as a study file has them.
    """
    import pyarrow as pa

    known = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(),
             "boolean": pa.bool_()}  # fmt: skip
    if name in COLUMNS:
        kind = known.get(COLUMNS[name].type)
    else:
        types = {type(value).__name__ for value in values if value is not None}
        kinds = {"bool": "boolean", "int": "integer", "float": "number", "float int": "number",
                 "str": "string"}  # fmt: skip
        kind = known.get(kinds.get(" ".join(sorted(types)), ""))
    if kind is None:
        values = [
            value if value is None or isinstance(value, str) else canonical_json(describe(value))
            for value in values
        ]
    return pa.array(values, kind or pa.string())
