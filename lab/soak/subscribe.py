"""
`python -m lab.soak.subscribe FILE`: a subscriber as anybody might write one, on `guestwire.changes()`.

It keeps the last value of every subject, and the token, in an SQLite file, both in one transaction: killed at any
moment, it goes on behind what it stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from pathlib import Path

import guestwire
from guestwire import lifecycle, logs, settings
from guestwire.errors import NotConnected
from guestwire.lifecycle import cancel, sleep_unless
from guestwire.settings import Nats

TABLES = """
CREATE TABLE IF NOT EXISTS latest (
    namespace TEXT, name TEXT, kind TEXT, uid TEXT, body TEXT, PRIMARY KEY (namespace, name, kind)
);
CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), token TEXT);
"""


class Store:
    """The file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # a killed process loses nothing, only a power cut would
        self._db.executescript(TABLES)

    @property
    def token(self) -> str | None:
        """Behind the last change that was stored."""
        found = self._db.execute("SELECT token FROM place").fetchone()
        return str(found[0]) if found else None

    def take(self, change: guestwire.Change) -> None:
        """A change, and the token behind it."""
        ref, db = change.ref, self._db
        with db:
            if change.reset:
                db.execute("DELETE FROM latest")
            if change.gone:
                db.execute("DELETE FROM latest WHERE namespace = ? AND name = ?", (ref.namespace, ref.name))
            else:
                row = (ref.namespace, ref.name, change.kind, change.uid, change.body.decode())
                db.execute("INSERT OR REPLACE INTO latest VALUES (?, ?, ?, ?, ?)", row)
            db.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (change.token,))


async def subscribe(nats: Nats, store: Store) -> None:
    """For ever, as long as NATS answers."""
    async with contextlib.aclosing(guestwire.changes(nats, since=store.token)) as changes:
        async for change in changes:
            store.take(change)


async def run(nats: Nats, path: Path, stop: asyncio.Event) -> None:
    """Until `stop`."""
    store, stopped = Store(path), asyncio.create_task(stop.wait())
    while not stop.is_set():
        subscribing = asyncio.create_task(subscribe(nats, store))
        await asyncio.wait({subscribing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await cancel(*({subscribing} if not subscribing.done() else set()))
        if not stop.is_set() and not isinstance(error := subscribing.exception(), NotConnected):
            raise AssertionError("a subscription never ends by itself") from error
        await sleep_unless(stop, 0.5)
    await cancel(stopped)


def main() -> int:
    """Exit status."""
    own = settings.load().settings
    logs.configure(own.log)
    return lifecycle.run(lambda stop: run(own.nats, Path(sys.argv[1]), stop), grace=own.shutdown_grace)


if __name__ == "__main__":
    sys.exit(main())
