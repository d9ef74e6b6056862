"""
The fleet as lines of text: which guests, in which order, in columns of a width. Pure.

What a guest says is hostile: of its texts only what can be printed reaches a terminal, everything else becomes `?`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from guestwire.snapshot import GuestRef

if TYPE_CHECKING:
    from api.summary import Summary


class Row(NamedTuple):
    """A guest."""

    ref: GuestRef
    summary: Summary
    agent: str
    """Its state, or that it is stale."""

    @property
    def text(self) -> str:
        """What a filter looks at."""
        of = self.summary
        said = (str(self.ref), self.agent, of.phase, of.host, of.os, of.address, of.hostname, of.kernel, of.version)
        return " ".join((*said, *(of.users or ()))).lower()


class Column(NamedTuple):
    """What it shows, and how it is sorted; `order` of what is not known comes last."""

    title: str
    key: str
    """To press."""
    least: int
    share: int
    """Of the width that is left over."""
    text: Callable[[Row, datetime], str]
    order: Callable[[Row], Any]


AGENTS = ("stale", "unresponsive", "disconnected", "frozen", "connected", "none")
"""In the order of how much they need a look."""


def rank(agent: str) -> int:
    """Who needs a look comes first; a state of a version to come, last."""
    return AGENTS.index(agent) if agent in AGENTS else len(AGENTS)


def _users(row: Row, _now: datetime) -> str:
    users = row.summary.users
    return "" if users is None else f"{len(users)} {','.join(users)}" if users else "0"


def _disk(row: Row, _now: datetime) -> str:
    fullest = row.summary.fullest
    return f"{int(100 * fullest.used):3d} % {fullest.mount_point}" if fullest else ""


def _seen(row: Row, now: datetime) -> str:
    seen = row.summary.observed_at
    return age((now - seen).total_seconds()) if seen else "never"


COLUMNS = (
    Column("GUEST", "g", 16, 3, lambda row, _now: str(row.ref), lambda row: row.ref),
    Column("AGENT", "a", 12, 0, lambda row, _now: row.agent, lambda row: rank(row.agent)),
    Column("OS", "o", 10, 3, lambda row, _now: row.summary.os, lambda row: (not row.summary.os, row.summary.os)),
    Column("ADDRESS", "i", 15, 1, lambda row, _now: row.summary.address, lambda row: row.summary.address),
    Column("USERS", "u", 8, 2, _users, lambda row: -len(row.summary.users or ())),
    Column("FULLEST", "d", 12, 1, _disk, lambda row: -(row.summary.fullest.used if row.summary.fullest else -1)),
    Column("SEEN", "s", 5, 0, _seen, lambda row: row.summary.observed_at.timestamp() if row.summary.observed_at else 0),
)
KEYS = {column.key: column for column in COLUMNS}


def age(seconds: float) -> str:
    """In the largest unit."""
    for end, unit, word in ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h")):
        if seconds < end:
            return f"{max(0, int(seconds / unit))}{word}"
    return f"{int(seconds / 86400)}d"


def chosen(rows: Iterable[Row], words: str, column: Column, *, backwards: bool) -> list[Row]:
    """Those with every word, sorted; by name where they are equal."""
    wanted = words.lower().split()
    rows = sorted((row for row in rows if all(word in row.text for word in wanted)), key=lambda row: row.ref)
    return sorted(rows, key=column.order, reverse=backwards)


def overview(rows: Sequence[Row]) -> str:
    """How many there are, and in which states."""
    counts = {agent: sum(row.agent == agent for row in rows) for agent in reversed(AGENTS)}
    states = [f"{count} {agent}" for agent, count in counts.items() if count]
    users = sum(len(row.summary.users or ()) for row in rows)
    return ", ".join([f"{len(rows)} guest{'' if len(rows) == 1 else 's'}", *states, f"{users} logged in"])


def widths(width: int) -> list[int]:
    """Of each column, so that all fit with a space between them; 0 for those, from the right, that do not."""
    shown = list(COLUMNS)
    while len(shown) > 1 and sum(column.least + 1 for column in shown) > width + 1:
        shown.pop(-2 if len(shown) > 2 else -1)  # when it was seen says whether all the rest is true
    rest = max(0, width + 1 - sum(column.least + 1 for column in shown))
    shares = sum(column.share for column in shown) or 1
    return [column.least + rest * column.share // shares if column in shown else 0 for column in COLUMNS]


def natural_widths(rows: Sequence[Row], now: datetime) -> list[int]:
    """Of each column, so that nothing is cut off."""
    return [
        max((measure(printable(text)) for text in (column.title, *(column.text(row, now) for row in rows))), default=0)
        for column in COLUMNS
    ]


def header(sizes: Sequence[int], mark: Column | None = None, *, backwards: bool = False) -> str:
    """Titles; the one that is sorted by has a mark."""
    arrow = "↑" if backwards else "↓"
    return _joined([column.title + (arrow if column is mark else "") for column in COLUMNS], sizes)


def line(row: Row, sizes: Sequence[int], now: datetime) -> str:
    """A guest."""
    return _joined([column.text(row, now) for column in COLUMNS], sizes)


def _joined(texts: Sequence[str], sizes: Sequence[int]) -> str:
    return " ".join(fitted(text, size) for text, size in zip(texts, sizes, strict=True) if size).rstrip()


def printable(text: str) -> str:
    """Without anything that a terminal would obey, or that turns the order of letters."""
    return "".join("?" if unicodedata.category(each)[0] in "CZ" and each != " " else each for each in text)


def measure(text: str) -> int:
    """Columns of a terminal that a printable text takes."""
    return sum(_cells(each) for each in text)


def fitted(text: str, width: int) -> str:
    """Exactly so many columns of a terminal: cut off with an ellipsis, or filled up."""
    text = printable(text)
    size = measure(text)
    if size <= width:
        return text + " " * (width - size)
    kept, size = [], 0
    for each in text:
        if size + _cells(each) > width - 1:
            break
        kept.append(each)
        size += _cells(each)
    return "".join(kept) + "…" + " " * (width - 1 - size)


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
