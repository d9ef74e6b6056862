"""
A directory of Parquet files: rows and position in the same rename.

    events/date=2026-11-23/e0001-00000000000000000042.parquet      epoch 1, from revision 42 on
    filesystems/date=2026-11-23/...
    now/guests.parquet ...                                         the present state
    views.sql                                                      the views, for DuckDB in this directory

A file is written beside its place, synced, and renamed into it; nothing is ever changed in place. The last file of a
table grows: it is replaced, under its name, by one that holds its rows and those that came. So there are no small files
to be merged later, no file is ever deleted under a reader, and no moment in which a row is there twice or not at all,
whenever the process is killed. A file that is large enough is left alone for ever.

Each file's own metadata say up to which position its table is written. `events` comes last and thereby commits: where
the process was killed in between, other tables are a batch ahead, and lose it when the export is opened again. A
directory is the day that the stream had reached, by the latest `observed_at` so far, not later than today.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from guestwire.errors import ConfigError, GuestwireError
from guestwire.export import arrow, reading
from guestwire.export.lock import locked
from guestwire.export.position import Position
from guestwire.export.tables import EVENTS, TABLES, TYPED, Table, moment
from guestwire.export.views import PRESENT
from guestwire.jetstream import Message

ENOUGH_ROWS, ENOUGH_BYTES = 100_000, 64 * 1024 * 1024
"""A file that holds so many rows, or so many bytes in memory, does not grow any more."""

SHARE = 20
"""The present state is written anew for at most one part in so many of the time."""

VIEWS = "views.sql"
"""The first file to be written; by it a directory is known to be ours."""

_KEY = b"guestwire"


class ParquetStore:
    """One directory; made when it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tails: dict[str, Path | None] = {}
        self._stale = True
        self._refresh_at = 0.0

    def locked(self) -> AbstractContextManager[None]:
        """Be the only writer."""
        try:
            self._path.mkdir(exist_ok=True)
            names = {file.name for file in self._path.iterdir()}
        except OSError as error:
            raise GuestwireError(f"cannot write {self._path}: {error.strerror}") from error
        if VIEWS not in names and names - {".lock", f"{VIEWS}.tmp"}:
            raise ConfigError(f"{self._path} holds something else; name an empty directory, or one that is not there")
        return locked(self._path / ".lock", self._path)

    def position(self) -> Position | None:
        """Remove what an end in the midst left behind; how far this export is."""
        _replace(self._path / VIEWS, reading.sql(Path()).encode())
        for directory in (*(table.name for table in TABLES), "now"):
            for leftover in (self._path / directory).glob("**/*.tmp"):
                leftover.unlink()
        committed = self._files(EVENTS)
        position = _position(committed[-1]) if committed else None
        for table in TYPED:
            self._cut(table, position)
        self._tails = {table.name: max(self._files(table), key=_order, default=None) for table in TABLES}
        return position

    def append(self, position: Position, messages: Sequence[Message]) -> int:
        """Messages up to that position, where they are of several days one day after the other; the rows."""
        days, rows = list(self._by_day(messages)), 0
        for number, (day, some) in enumerate(days, 1):
            last = number == len(days)
            upto = position if last else msgspec.structs.replace(position, revision=some[-1].revision)
            rows += self._commit(upto, day, some)
        self._stale = True
        return rows

    def refresh(self, *, at_once: bool = False) -> None:
        """Write the present state, if it changed and the last time is long enough ago."""
        if not self._stale or not self._tails.get(EVENTS.name) or not (at_once or time.monotonic() >= self._refresh_at):
            return
        began = time.monotonic()
        with reading.connect(self._path) as db:
            for name in PRESENT:
                file = self._path / "now" / f"{name.removesuffix('_now')}.parquet"
                _replace(file, db.sql(f"SELECT * FROM {name}").to_arrow_table())  # noqa: S608 - names of ours
        self._stale, self._refresh_at = False, time.monotonic() + SHARE * (time.monotonic() - began)

    # --- one table ---------------------------------------------------------------------------------------------

    def _by_day(self, messages: Sequence[Message]) -> Iterator[tuple[str, list[Message]]]:
        tail = self._tails[EVENTS.name]
        day = _day(tail) if tail else date.min.isoformat()
        today = datetime.now(UTC).date().isoformat()
        some: list[Message] = []
        for message in messages:
            observed = moment(message.event.time)
            reached = max(day, min(observed.date().isoformat(), today)) if observed else day
            if reached != day and some:
                yield day, some
                some = []
            day = reached
            some.append(message)
        yield day, some

    def _commit(self, position: Position, day: str, messages: Sequence[Message]) -> int:
        batch = arrow.tables(position.epoch, messages)
        for table in (*TYPED, EVENTS):
            rows = batch[table.name]
            if rows.num_rows or self._tails[table.name] is None:  # a table without any file could not be read
                self._grow(table, position, day, rows, messages[0].revision)
        return sum(rows.num_rows for rows in batch.values())

    def _grow(self, table: Table, position: Position, day: str, rows: pa.Table, first: int) -> None:
        tail = self._tails[table.name]
        if tail and _day(tail) == day and _position(tail).epoch == position.epoch:
            held = pq.ParquetFile(tail).read()
            if held.num_rows < ENOUGH_ROWS and held.nbytes < ENOUGH_BYTES:
                _replace(tail, pa.concat_tables([held.replace_schema_metadata(), rows]), position)
                return
        file = self._path / table.name / f"date={day}" / f"e{position.epoch:04}-{first:020}.parquet"
        _replace(file, rows, position)
        self._tails[table.name] = file

    def _cut(self, table: Table, position: Position | None) -> None:
        """Remove what is behind the position."""
        for file in reversed(self._files(table)):
            found = _position(file)
            if position and (found.epoch, found.revision) <= (position.epoch, position.revision):
                return
            if position and found.epoch == position.epoch and _first(file) <= position.revision:
                rows = pq.ParquetFile(file).read().replace_schema_metadata()
                _replace(file, rows.filter(pc.field("revision") <= position.revision), position)
                return
            file.unlink()

    def _files(self, table: Table) -> list[Path]:
        """In the order of epochs and revisions."""
        return sorted((self._path / table.name).glob("date=*/*.parquet"), key=_order)


def _day(file: Path) -> str:
    return file.parent.name.removeprefix("date=")


def _order(file: Path) -> str:
    return file.name


def _first(file: Path) -> int:
    return int(file.stem.partition("-")[2])


def _position(file: Path) -> Position:
    """Up to which a file is written."""
    try:
        return msgspec.json.decode(pq.read_schema(file).metadata[_KEY], type=Position)
    except (OSError, pa.ArrowException, KeyError, TypeError, msgspec.DecodeError) as error:
        raise GuestwireError(f"{file} was not written by guestwire, or is damaged: {error}") from error


def _replace(file: Path, content: pa.Table | bytes, position: Position | None = None) -> None:
    """Write beside its place, sync, rename. GuestwireError where the disk does not let us."""
    partial = file.with_name(f"{file.name}.tmp")
    try:
        if not file.parent.is_dir():
            file.parent.mkdir(parents=True)
            _sync(file.parent.parent)
        with partial.open("wb") as handle:
            if isinstance(content, bytes):
                handle.write(content)
            else:
                if position:
                    content = content.replace_schema_metadata({_KEY: msgspec.json.encode(position)})
                pq.write_table(content, handle, compression="zstd")
            handle.flush()
            os.fsync(handle.fileno())
        partial.rename(file)
        _sync(file.parent)
    except OSError as error:
        raise GuestwireError(f"cannot write {file}: {error.strerror or error}") from error


def _sync(directory: Path) -> None:
    """Make names in a directory outlast a loss of power."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
