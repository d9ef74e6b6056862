"""What `guestwire top` shows of a cache, and what keys do to it."""

from __future__ import annotations

import time

from api.cache import Cache
from api.summary import STALE, Summary, agent_now, summarize
from guestwire import codec
from guestwire.cli.fleet_table import (
    COLUMNS,
    KEYS,
    Row,
    chosen,
    fitted,
    header,
    line,
    natural_widths,
    overview,
    widths,
)
from guestwire.snapshot import GuestRef

HELP = "g a o i u d s: sort   r: the other way   /: filter   q: quit"


class Picture:
    """What is to be seen of the fleet: the rows that were asked for, from where they were scrolled to."""

    def __init__(self, words: str, sort: str) -> None:
        self.words = words
        self.typing = False
        self.column = next(column for column in COLUMNS if column.title.lower() == sort)
        self.backwards = False
        self.first = 0
        self._made: dict[GuestRef, tuple[int, Summary]] = {}

    def rows(self, cache: Cache) -> list[Row]:
        """All guests; what is unchanged is not made anew, but for whether it is stale."""
        now, before, self._made = time.time(), self._made, {}
        rows = []
        for ref, guest in cache.fleet.guests.items():
            made = before.get(ref)
            made = self._made[ref] = made if made and made[0] == guest.revision else (guest.revision, summarize(guest))
            rows.append(Row(ref, made[1], agent_now(guest, made[1], now, cache.silence)))
        return rows

    def table(self, cache: Cache) -> str:
        """All of it, in full."""
        now = codec.now()
        rows = chosen(self.rows(cache), self.words, self.column, backwards=self.backwards)
        sizes = natural_widths(rows, now)
        return "\n".join([header(sizes), *(line(row, sizes, now) for row in rows)])

    def lines(self, cache: Cache, size: tuple[int, int], *, connected: bool) -> list[tuple[str, str]]:
        """What fits on a screen, with styles."""
        width, height = size
        now, everything = codec.now(), self.rows(cache)
        rows = chosen(everything, self.words, self.column, backwards=self.backwards)
        room = height - 4
        self.first = max(0, min(self.first, len(rows) - room))
        sizes = widths(width)
        shown = [(line(row, sizes, now), _style(row)) for row in rows[self.first : self.first + room]]
        shown += [("", "")] * (room - len(shown))
        state = "" if connected and cache.level else "   reading the stream" if connected else "   NATS is away"
        typed = f"filter: {self.words}{'_' if self.typing else ''}" if self.typing or self.words else HELP
        place = f"{self.first + 1 if rows else 0}-{min(len(rows), self.first + room)} of {len(rows)}"
        return [
            (fitted(f"guestwire top   {overview(everything)}{state}", width), "bold"),
            (fitted(header(sizes, self.column, backwards=self.backwards), width), "inverse"),
            *shown,
            ("", ""),
            (fitted(f"{place}   {typed}", width), ""),
        ]

    def press(self, key: str, room: int) -> bool:
        """Take a key; False when it ends the program."""
        if key == "interrupt":
            return False
        if self.typing and self._type(key):
            return True
        steps = {"up": -1, "down": 1, "page up": -room, "page down": room, "home": -(10**9), "end": 10**9}
        if key in steps:
            self.first = max(0, self.first + steps[key])
        elif key in KEYS:
            self.backwards = KEYS[key] is self.column and not self.backwards
            self.column, self.first = KEYS[key], 0
        elif key == "r":
            self.backwards = not self.backwards
        elif key == "/":
            self.typing = True
        elif key == "escape":
            self.words = ""
        return key != "q"

    def _type(self, key: str) -> bool:
        if key in {"enter", "escape"}:
            self.typing = False
            self.words = self.words if key == "enter" else ""
        elif key == "backspace":
            self.words = self.words[:-1]
        elif len(key) == 1 and key.isprintable():
            self.words = (self.words + key)[:100]
        else:
            return False
        self.first = 0
        return True


def _style(row: Row) -> str:
    return "warning" if row.agent in {STALE, "unresponsive", "disconnected"} else ""
