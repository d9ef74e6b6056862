"""
The live page's stream: rows of guests as server-sent events (HTML Living Standard, 9.2).

A position in the order of changes, as for watches (`watch`), is the id of every event, so a client that comes back
with Last-Event-ID goes on where it was, the beginning included: first come all guests in slices, in the same order. A
row is a guest in a line (`summary`), made and encoded once for all who look on.

    reset   everything that was told before is void; rows follow
    rows    {"gone": [[NAMESPACE, NAME], …], "rows": [ROW, …]}: apply `gone` first
    level   {"revision": …, "newest": …, "silence": …}: all has been told; again every few seconds, as a sign of life
    end     come back without an id: this stream's positions mean nothing any more

What changes often is told no more than four times a second, as it is then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime

import msgspec
from starlette.types import Send

from api import fleet
from api.answers import ranges, send_part
from api.cache import Cache
from api.guest import Guest
from api.names import printable
from api.streams import Stream
from api.summary import Summary, summarize

EVENTS = "text/event-stream"

SLICE = 200
"""Guests of an event, and between two pauses in which others have their turn."""

PAUSE = 0.25
"""Seconds between two events to a client that knows everything."""

SIGN = 5.0
"""Seconds between signs of life."""

LONGEST = 1800.0
"""Seconds after which a client has to come again, and be allowed to; up to twice that, so that not all come at once."""


class Row(Summary, frozen=True, kw_only=True):
    """A guest in a line, with its name and the revision of the newest message about it."""

    namespace: str
    name: str
    revision: int
    told_at: datetime | None = None
    """When its collector last told of it; it is stale some time after that, and no event says so."""


class Level(msgspec.Struct, frozen=True):
    """How far the stream has been told, and what a client needs to tell which guests are stale."""

    revision: int
    newest: float
    """The time of the newest message, in seconds since the epoch."""
    silence: float
    """Seconds after a guest's `told_at` from which on it is stale."""


class Rows:
    """Rows as JSON, each made once per change of its guest; as many as there are guests, at most twice."""

    def __init__(self, guests: fleet.Fleet) -> None:
        self._fleet = guests
        self._made: dict[int, tuple[Guest, int, bytes]] = {}

    def of(self, guest: Guest) -> bytes:
        """The row of this moment."""
        made = self._made.get(id(guest))
        if made and made[0] is guest and made[1] == guest.revision:
            return made[2]
        ref, summary = guest.ref, summarize(guest)
        facts = {field: getattr(summary, field) for field in Summary.__struct_fields__}
        namespace, name = printable(ref.namespace), printable(ref.name)
        row = msgspec.json.encode(
            Row(namespace=namespace, name=name, revision=guest.revision, told_at=guest.told_at, **facts)
        )
        if len(self._made) > 2 * len(self._fleet.guests) + 1024:
            self._made.clear()
        self._made[id(guest)] = (guest, guest.revision, row)
        return row


def wanted(accept: bytes) -> bool:
    """Whether a watch is to be told as events."""
    return any(media == EVENTS for media, _ in ranges(accept)) if EVENTS.encode() in accept.lower() else False


class Live(Stream):
    """The guests of a scope, from the position that the client says it knows."""

    content_type = EVENTS

    def __init__(
        self, cache: Cache, rows: Rows, scope: fleet.Scope, last_event_id: bytes, valid: Callable[[], bool]
    ) -> None:
        super().__init__(cache.fleet, scope, valid)
        self._cache = cache
        self._rows = rows
        self._scope = scope
        known = int(last_event_id) if last_event_id.isdigit() and len(last_event_id) < 19 else -1
        self._resumes = self._floor <= known <= self._fleet.revision
        self._told = known if self._resumes else 0
        self._known = self._told if self._resumes else self._fleet.revision
        """Who went up to this revision, was never told to be there, or was told to have gone."""

    async def _run(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST * (1 + random.random())  # noqa: S311
        sign, level = 0.0, False
        first = b"retry: 2000\n\n" + (b"" if self._resumes else b"event: reset\ndata: {}\n\n")
        await send_part(send, first)
        while not self._left and self._valid() and loop.time() < end:
            if self._lost():
                await send_part(send, b"id\nevent: end\ndata: {}\n\n")
                return
            event = self._step()
            behind = self._told < self._fleet.revision
            if not behind and (not level or loop.time() >= sign):
                told = Level(self._told, self._cache.newest, self._cache.silence)
                event += self._event(b"level", msgspec.json.encode(told))
                level, sign = True, loop.time() + SIGN
            if event:
                await send_part(send, event)
            if behind:
                await asyncio.sleep(0)
            else:
                await self._sleep(min(sign, end))
                await asyncio.sleep(PAUSE)

    def _step(self) -> bytes:
        changes, self._told = self._fleet.since(self._told, SLICE)
        rows, gone = [], []
        for ref, revision in {change.guest.ref: change.revision for change in changes if self._within(change)}.items():
            if guest := self._fleet.guests.get(ref):
                rows.append(self._rows.of(guest))
            elif revision > self._known:
                gone.append((printable(ref.namespace), printable(ref.name)))
        if not rows and not gone:
            return b""
        return self._event(b"rows", b'{"gone":%b,"rows":[%b]}' % (msgspec.json.encode(gone), b",".join(rows)))

    def _within(self, change: fleet.Change) -> bool:
        namespace, name = self._scope
        ref = change.guest.ref
        return namespace in {None, ref.namespace} and name in {None, ref.name}

    def _event(self, name: bytes, data: bytes) -> bytes:
        """JSON has no line breaks of its own, so it is one line of data."""
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (self._told, name, data)
