"""
The column dictionary of docs/analytics.md, from the tables and views themselves.

    python -m guestwire.export.dictionary
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import duckdb

from guestwire.export.tables import KEY, TABLES, Column
from guestwire.export.views import VIEWS, statements


def markdown() -> str:
    """Every table and view with its columns."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "### Columns of every table"
    yield from _table((column.name, column.type, column.meaning) for column in KEY)
    for table in TABLES:
        yield f"\n### `{table.name}`\n\n{table.meaning}"
        yield from _table((column.name, column.type, column.meaning) for column in table.own)
    columns = _of_views()
    for view in VIEWS:
        yield f"\n### `{view.name}` (view)\n\n{view.meaning}\n\n{', '.join(columns[view.name])}."
    yield ""


def _table(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    yield "\n| Column | Type | Meaning |\n| --- | --- | --- |"
    for name, kind, meaning in rows:
        yield f"| `{name}` | {kind} | {meaning} |"


def _of_views() -> dict[str, list[str]]:
    """Each view's columns with their types, as DuckDB sees them."""

    def definition(columns: tuple[Column, ...]) -> str:
        return ", ".join(f"{column.name} {column.type}" for column in columns)

    with duckdb.connect() as db:
        for table in TABLES:
            db.execute(f"CREATE TABLE {table.name} ({definition(table.columns)})")
        for statement in statements():
            db.execute(statement)
        return {
            view.name: [f"`{row[0]}` {row[1]}" for row in db.execute(f"DESCRIBE {view.name}").fetchall()]
            for view in VIEWS
        }


if __name__ == "__main__":
    print(markdown(), end="")
