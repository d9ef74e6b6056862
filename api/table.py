"""
A table of guests, made here, so that kubectl shows them without knowing them (metav1.Table).

Times are ages, written as kubectl writes them (apimachinery, pkg/util/duration HumanDuration).
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from api.forms import META, OBJECTS, ListMeta, bookmark_of, partial
from api.guest import Guest
from api.names import printable
from api.summary import Summary, agent_now, summarize

UNKNOWN = "<unknown>"


class Column(NamedTuple):
    """metav1.TableColumnDefinition; columns of a priority above 0 are for `-o wide`."""

    name: str
    type: str
    description: str
    priority: int = 0
    format: str = ""

    def definition(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict()


COLUMNS = (
    Column("Name", "string", "Name of the guest.", format="name"),
    Column(
        "Agent",
        "string",
        "State of its agent: connected, frozen, unresponsive, disconnected, or none; stale when nobody has told of the "
        "guest for three heartbeats.",
    ),
    Column("OS", "string", "Operating system, as it names itself."),
    Column("IP", "string", "Address to reach it by, of the first of its devices that has one."),
    Column("Users", "string", "How many different users are logged in."),
    Column("Disk", "string", "How full the fullest filesystem is."),
    Column("Age", "string", "For how long its agent has been connected, or not."),
    Column("Phase", "string", "Whether the guest runs.", 1),
    Column("Host", "string", "Where it runs.", 1),
    Column("Kernel", "string", "Release of its kernel.", 1),
    Column("Version", "string", "Version of its agent.", 1),
    Column("Fullest", "string", "Mount point of the fullest filesystem.", 1),
    Column("Seen", "string", "How long ago it was last read.", 1),
)

DEFINITIONS = msgspec.json.encode([column.definition() for column in COLUMNS])


class Table:
    """
    `include` says what a row holds of the object: None, Metadata, Object. Who was not told of for `silence` seconds is
    stale when the row is written; no event tells of it, for nothing happened.
    """

    collection = "Table"
    steady = False

    def __init__(self, include: str, silence: float) -> None:
        self._include = include
        self._silence = silence

    def entry(self, guest: Guest, revision: int) -> bytes:
        """A row."""
        now, summary = time.time(), summarize(guest)
        agent = agent_now(guest, summary, now, self._silence)
        cells = msgspec.json.encode(_cells(guest.ref.name, agent, summary, now))
        if self._include == "None":
            return b'{"cells":%b,"object":null}' % cells
        told = OBJECTS.entry(guest, revision) if self._include == "Object" else partial(guest, revision)
        return b'{"cells":%b,"object":%b}' % (cells, told)

    def opening(self) -> bytes:
        """Columns come first."""
        return b'{"apiVersion":"%b","columnDefinitions":%b,"kind":"Table","rows":[' % (META.encode(), DEFINITIONS)

    def closing(self, meta: ListMeta) -> bytes:
        """The metadata of a list."""
        return b'],"metadata":%b}' % msgspec.json.encode(meta)

    def alone(self, guest: Guest, revision: int) -> bytes:
        """A table of one row."""
        return self.opening() + self.entry(guest, revision) + self.closing(ListMeta(str(revision)))

    def bookmark(self, revision: int, annotations: dict[str, str]) -> bytes:
        """A table whose row has nothing but an object."""
        told = bookmark_of(META, "PartialObjectMetadata", revision, annotations)
        return self.opening() + b'{"cells":[],"object":%b}' % told + self.closing(ListMeta(str(revision)))


def _cells(name: str, agent: str, summary: Summary, now: float) -> list[str | int]:
    fullest = summary.fullest
    return [
        printable(name),
        agent,
        summary.os or UNKNOWN,
        summary.address or UNKNOWN,
        UNKNOWN if summary.users is None else len(summary.users),
        f"{fullest.used:.0%}" if fullest else UNKNOWN,
        age(summary.since, now),
        summary.phase,
        summary.host or UNKNOWN,
        summary.kernel or UNKNOWN,
        summary.version or UNKNOWN,
        fullest.mount_point if fullest else UNKNOWN,
        age(summary.observed_at, now),
    ]


def age(moment: datetime | None, now: float) -> str:
    """How long ago; a clock that is ahead makes it 0s."""
    if moment is None:
        return UNKNOWN
    return duration(max(0, int(now - moment.timestamp())))


def duration(seconds: int) -> str:
    """The two largest units that say enough: 90s is `90s`, 600s `10m`, a day and two hours `26h`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(large: int, unit: str, small: int, part: str) -> str:
    return f"{large}{unit}{small}{part}" if small else f"{large}{unit}"
