"""
Writes a Parquet export again and again, each time killed at the next of all the moments at which it touches a file.

    python killed_anywhere.py DIRECTORY

Run n writes below DIRECTORY/n and kills itself with SIGKILL just before its n-th step (open, rename, remove, mkdir);
the last one finishes. Each is a fork of a process that has no thread yet. Prints how many were killed.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from guestwire.codec import Event
from guestwire.export import parquet_store
from guestwire.export.parquet_store import ParquetStore
from guestwire.export.position import Position
from guestwire.jetstream import Message
from guestwire.snapshot import GuestRef
from guestwire.subjects import Address

CREATED = datetime(2026, 1, 1)  # noqa: DTZ001 - positions have no zone
COUNT, BATCH = 20, 8
STEPS = {"open", "os.rename", "os.remove", "os.mkdir"}


def message(number: int) -> Message:
    """Four of five tell of users, one a day later than the one before."""
    at = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(hours=3 * number)
    kind, body = "userlist", b'{"items":[{"userName":"a"},{"userName":"b"}],"metadata":{}}'
    if number % 5 == 0:
        kind, body = "interfaces", b'{"domain":[{"name":"default"}],"guest":[]}'
    return Message(Address("c", GuestRef("ns", "vm"), kind), number, Event(str(number), "/h", "u", at, ""), body, {})


def export(directory: Path, batch: int) -> None:
    """Go on where the last one ended, to the end."""
    store = ParquetStore(directory)
    with store.locked():
        position = store.position() or Position("S", CREATED)
        for first in range(position.revision + 1, COUNT + 1, batch):
            last = min(first + batch - 1, COUNT)
            store.append(Position("S", CREATED, 1, last), [message(number) for number in range(first, last + 1)])


def kill_before(step: int, directory: Path) -> None:
    """Hook into everything that touches a file below a directory."""
    left = step

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in STEPS and str(arguments[0]).startswith(str(directory)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main(below: Path) -> None:
    """All moments, one after the other."""
    parquet_store.ENOUGH_ROWS = 6
    for step in itertools.count(1):
        child = os.fork()
        if child == 0:
            kill_before(step, below)
            export(below / str(step), BATCH)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            print(step - 1)
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
