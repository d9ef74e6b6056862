"""
Reading an export with DuckDB, whichever form it has: the same tables and views.

    with guestwire.export.reading.connect(Path("guests.duckdb")) as db:
        print(db.sql("SELECT os_id, count(*) FROM guests GROUP BY ALL"))
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from guestwire.errors import ConfigError
from guestwire.export.tables import EVENTS, TABLES
from guestwire.export.views import statements


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """
    A connection that reads an export; ConfigError where there is none. Close it soon when it is a DuckDB file: the
    export cannot write meanwhile.
    """
    if path.is_dir():
        if not any((path / EVENTS.name).glob("date=*/*.parquet")):
            raise ConfigError(f"{path} holds no export yet")
        db = duckdb.connect()
        db.execute(sql(path))
        return db
    if not path.exists():
        raise ConfigError(f"{path} is not there")
    db = duckdb.connect(path, read_only=True)
    if not db.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [EVENTS.name]).fetchall():
        db.close()
        raise ConfigError(f"{path} holds no export yet")
    return db


def sql(directory: Path) -> str:
    """What makes the tables and views of a directory of Parquet files."""
    tables = []
    for table in TABLES:
        files = str(directory / table.name / "date=*" / "*.parquet").replace("'", "''")
        source = f"read_parquet('{files}', hive_partitioning = false)"
        tables.append(f"CREATE OR REPLACE VIEW {table.name} AS SELECT * FROM {source}")  # noqa: S608 - names of ours
    return ";\n".join([*tables, *statements()]) + ";\n"
