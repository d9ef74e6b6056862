"""
A DuckDB file: rows and position in the same transaction.

The file is open only while something is written, because DuckDB lets nobody read a file that another process has open
for writing, and nobody write one that is being read. While a reader has it, the export waits and NATS keeps what comes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb

from guestwire.errors import ConfigError, GuestwireError, TransientError
from guestwire.export import arrow
from guestwire.export.lock import locked
from guestwire.export.position import Position
from guestwire.export.tables import TABLES
from guestwire.export.views import statements
from guestwire.jetstream import Message

EPOCHS = """
CREATE TABLE IF NOT EXISTS epochs (
    epoch INTEGER PRIMARY KEY, stream VARCHAR NOT NULL, created TIMESTAMP NOT NULL, revision BIGINT NOT NULL
)
"""

DONE = "SELECT 1 FROM epochs WHERE epoch = ? AND revision >= ?"


class DuckDBStore:
    """One file; made when it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def locked(self) -> AbstractContextManager[None]:
        """Be the only writer."""
        if not self._path.parent.is_dir():
            raise ConfigError(f"no directory {self._path.parent}")
        return locked(self._path.with_name(f"{self._path.name}.lock"), self._path)

    def position(self) -> Position | None:
        """Make what is missing; how far this export is. TransientError while somebody reads the file."""
        with self._transaction() as db:
            tables = {name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
            if tables and "epochs" not in tables:
                raise ConfigError(f"{self._path} holds something else; name a file that is not there")
            db.execute(EPOCHS)
            for table in TABLES:
                columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
                db.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({columns})")
            for statement in statements():
                db.execute(statement)
            found = db.execute(
                "SELECT stream, created, epoch, revision FROM epochs ORDER BY epoch DESC LIMIT 1"
            ).fetchall()
        return Position(*found[0]) if found else None

    def append(self, position: Position, messages: Sequence[Message]) -> int:
        """
        Messages up to that position, all or nothing; the rows, 0 if it was done before and not noticed. TransientError
        while somebody reads the file.
        """
        batch = arrow.tables(position.epoch, messages)
        with self._transaction() as db:
            if db.execute(DONE, [position.epoch, position.revision]).fetchall():
                return 0
            for name, rows in batch.items():
                if rows.num_rows:
                    db.register("batch", rows)
                    db.execute(f"INSERT INTO {name} BY NAME SELECT * FROM batch")  # noqa: S608 - a name of ours
                    db.unregister("batch")
            db.execute(
                "INSERT OR REPLACE INTO epochs VALUES (?, ?, ?, ?)",
                [position.epoch, position.stream, position.created, position.revision],
            )
        return sum(rows.num_rows for rows in batch.values())

    def refresh(self, *, at_once: bool = False) -> None:
        """Views need nothing."""

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with duckdb.connect(self._path) as db:
                db.begin()
                yield db
                db.commit()
        except duckdb.IOException as error:
            first = str(error).partition("\n")[0]
            if "lock" in first:
                raise TransientError(f"{self._path} is open in another program") from error
            raise GuestwireError(f"cannot write {self._path}: {first}") from error
        except duckdb.Error as error:
            raise GuestwireError(f"cannot write {self._path}: {str(error).partition(chr(10))[0]}") from error
