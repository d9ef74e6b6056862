"""What becomes of messages, where an export goes on, and that the dictionary says what the tables are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from guestwire.codec import Event
from guestwire.errors import ConfigError
from guestwire.export import dictionary
from guestwire.export.position import Position, place
from guestwire.export.tables import EVENTS, TABLES, rows
from guestwire.jetstream import Message
from guestwire.snapshot import GuestRef
from guestwire.subjects import Address

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "contract" / "golden" / "v0.1.0"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = 8
MADE = datetime(2026, 1, 1)  # noqa: DTZ001 - positions have no zone
KNOWN = Position("GUESTWIRE", MADE, 3, 100)


def message(kind: str, body: bytes, at: datetime = NOON) -> Message:
    """A message about `default/demo`."""
    event = Event("1", "/guestwire/c/vm", "u", at, "t")
    return Message(Address("c", GuestRef("default", "demo"), kind), 7, event, body, {})


def made(kind: str, golden: str) -> dict[str, list[tuple[object, ...]]]:
    """The rows of a golden message, by table, without the columns that all have."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for table, row in rows(2, message(kind, (GOLDEN / f"{golden}.json").read_bytes())):
        found.setdefault(table, []).append(row[KEY:])
    return found


def test_columns_of_every_table() -> None:
    """Epoch, revision, time without a zone, and whose it is."""
    ((table, row),) = rows(2, message("weather", b"{}", NOON.astimezone(tz=None)))

    assert EVENTS.name == table
    assert (2, 7, NOON.replace(tzinfo=None), "c", "default", "demo", "u", "vm", "weather", "1", "t", "{}") == row


@pytest.mark.parametrize("golden", sorted(file.stem for file in GOLDEN.glob("*.*.json")))
def test_every_golden_message(golden: str) -> None:
    """Each row of what any release published has a value per column."""
    kind = golden.partition(".")[0]
    widths = {table.name: len(table.columns) for table in TABLES}

    assert all(
        len(row) == widths[table] for table, row in rows(1, message(kind, (GOLDEN / f"{golden}.json").read_bytes()))
    )


def test_unknown_is_null() -> None:
    """What was not read is NULL, not an empty text or 0."""
    (system,) = made("guestosinfo", "guestosinfo.nothing-read")["systems"]

    assert (None,) * 12 == system


def test_a_size_of_zero_is_unknown() -> None:
    """Where an agent does not tell sizes, both are NULL; 0 used of something is 0."""
    body = b"""{"items":[{"diskName":"d","mountPoint":"/a","fileSystemType":"x","usedBytes":0,"totalBytes":0},
        {"diskName":"d","mountPoint":"/b","fileSystemType":"x","usedBytes":0,"totalBytes":9}],"metadata":{}}"""
    found = [row[KEY:] for table, row in rows(1, message("filesystemlist", body)) if table == "filesystems"]

    assert [("/a", "d", "x", None, None), ("/b", "d", "x", 0, 9)] == found


def test_a_message_of_two_tables() -> None:
    """`interfaces` tells of devices and of addresses."""
    found = made("interfaces", "interfaces.linux")

    assert {"events", "interfaces", "addresses"} == set(found)


def test_going_on() -> None:
    """A stream is known again by its time of creation, and a new export begins with its first message."""
    assert KNOWN == place(KNOWN, "GUESTWIRE", MADE, 100)
    assert Position("GUESTWIRE", MADE) == place(None, "GUESTWIRE", MADE, 100)


def test_made_anew() -> None:
    """A stream that was made later, or has lost its end, is read anew in the next epoch."""
    later = MADE + timedelta(microseconds=1)

    assert Position("GUESTWIRE", later, 4, 0) == place(KNOWN, "GUESTWIRE", later, 500)
    assert Position("GUESTWIRE", MADE, 4, 0) == place(KNOWN, "GUESTWIRE", MADE, 99)


@pytest.mark.parametrize(("stream", "created"), [("OTHER", MADE), ("GUESTWIRE", MADE - timedelta(days=1))])
def test_not_that_stream(stream: str, created: datetime) -> None:
    """Another stream's name, or an older stream, is refused; the error names the setting."""
    with pytest.raises(ConfigError, match=r"^nats\.\w+: "):
        place(KNOWN, stream, created, 500)


def test_dictionary() -> None:
    """docs/analytics.md has every table, view and column; `python -m guestwire.export.dictionary` writes it."""
    page = (ROOT / "docs" / "analytics.md").read_text()

    assert dictionary.markdown() == page.partition("<!-- column dictionary -->\n")[2]
