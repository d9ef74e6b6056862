"""Messages as Arrow tables: how rows get into DuckDB and Parquet in bulk."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pyarrow as pa

from guestwire.export.tables import TABLES, Row, Table, rows
from guestwire.jetstream import Message

TYPES = {
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.bool_(),
    "VARCHAR": pa.string(),
    "TIMESTAMP": pa.timestamp("us"),
}
"""By SQL type."""


@cache
def schema(table: Table) -> pa.Schema:
    """The Arrow schema of a table."""
    return pa.schema([(column.name, TYPES[column.type]) for column in table.columns])


def tables(epoch: int, messages: Iterable[Message]) -> dict[str, pa.Table]:
    """What messages make of each table, by its name; tables without a row too."""
    found: dict[str, list[Row]] = {table.name: [] for table in TABLES}
    for message in messages:
        for name, row in rows(epoch, message):
            found[name].append(row)
    return {table.name: _table(schema(table), found[table.name]) for table in TABLES}


def _table(shape: pa.Schema, found: list[Row]) -> pa.Table:
    columns = list(zip(*found, strict=True)) or [()] * len(shape)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, shape, strict=True)]
    return pa.Table.from_arrays(arrays, schema=shape)
