"""
Reads that ask for more than the cache: a value no older than so much, or one of a guest whose agent is away.

For the first the guest is read, by a request to its collector over NATS: many who ask for the same cause one request,
and only so many are under way. A whole guest is as old as the oldest of what is told of it, and all of it is read.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from api import status
from api.answers import Answer, of_body
from api.cache import Cache
from api.groups import GUESTWIRE, Group
from api.guest import Guest, LastKnown
from api.lists import PATIENCE
from api.options import OptionError
from guestwire.errors import GuestwireError, NotConnected, TransientError
from guestwire.snapshot import BEGINNING, GuestRef, Kind

MOST = 64
"""Guests that are read at once."""

MOMENT = timedelta(seconds=1)
"""What was read so recently, a collector does not read again."""

ALL = "all"
"""Every kind, to a collector."""

STALE = b'warning: 110 guestwire "the agent is away; this is the last value known"\r\n'
"""A header line (RFC 7234, 5.5.1)."""

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}

ReadNow = Callable[[GuestRef, str], Awaitable[Mapping[str, int]]]
"""Have a guest's kind read; the revision of each kind afterwards. Raises TransientError."""


class Wish(msgspec.Struct, frozen=True):
    """What a read asks for besides its path."""

    max_age: float | None = None
    """Seconds."""
    stale: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wish:
        """Of `maxAge` (5s, 500ms, 1m30s, or seconds) and `allowStale`. Raises OptionError."""
        age, stale = query.get("maxAge"), query.get("allowStale", "false").lower()
        if stale not in {"true", "false", "1", "0", ""}:
            raise OptionError(f"allowStale: {stale[:40]!r} is neither true nor false")
        return cls(None if age is None else seconds(age), stale in {"true", "1", ""})


def refuse(query: Mapping[str, str]) -> None:
    """
    For who tells many guests: raises OptionError for what is a wish for one. To leave it alone, as parameters that
    nobody knows, would pass for fulfilling it.
    """
    for name in ("maxAge", "allowStale"):
        if name in query:
            raise OptionError(f"{name}: is for reads of one guest, not for lists and watches")


def seconds(text: str) -> float:
    """Of a duration as Go writes it, or a number. Raises OptionError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text) if len(text) <= 40 else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise OptionError(f"maxAge: {text[:40]!r} is no duration; such are 5s, 500ms, 1m30s")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


class TooMany(GuestwireError):  # noqa: N818 - a state of affairs
    """As many guests as may be are being read."""


class Told(NamedTuple):
    """What there is to tell of a whole guest."""

    guest: Guest
    stale: bool
    """Whether it is more than is known to be so."""


class Fresh:
    """`read_now` is None where there is no NATS to ask."""

    def __init__(self, cache: Cache, read_now: ReadNow | None) -> None:
        self._cache = cache
        self._read_now = read_now
        self._reading: dict[tuple[GuestRef, str], tuple[asyncio.Task[Mapping[str, int]], datetime]] = {}
        """And since when that is under way, or a moment before."""

    async def find(self, group: Group, ref: GuestRef, kind: str, wish: Wish) -> Answer:
        """The answer to a read of a kind."""
        if wish.max_age is not None and kind == Kind.AGENT:
            return status.bad_request("maxAge: agent is told whenever it changes, and never read")
        answer = self._cache.find(group, ref, kind)
        if answer.status == 409 and wish.stale:
            return self._last_known(ref, kind) or answer
        if wish.max_age is None or not self._worth_reading(answer, wish.max_age):
            return answer
        return await self._find_anew(group, ref, kind, answer)

    async def whole(self, ref: GuestRef, wish: Wish) -> Told | Answer:
        """A guest as it is to be told, or why it is not."""
        guest = self._cache.guest(ref)
        if guest and guest.askable and wish.max_age is not None:
            age = _oldest(guest)
            if age is None or age > wish.max_age:
                if refusal := await self._read_all(guest, age):
                    return refusal
                guest = self._cache.guest(ref)
        if guest is None:
            return status.not_found(GUESTWIRE, ref.name)
        if wish.stale and not guest.askable and (last := LastKnown(guest)).told():
            return Told(last, stale=True)
        return Told(guest, stale=False)

    async def _read_all(self, guest: Guest, age: float | None) -> Answer | None:
        """Why that did not bring everything that is told."""
        name = guest.ref.name
        try:
            await self._read(guest.ref, ALL)
        except TooMany:
            return status.too_many_readings()
        except TransientError as error:
            return status.no_answer(GUESTWIRE, name, "", str(error), age)
        for kind in guest.told():
            if problem := guest.presence and guest.presence.errors.get(kind):
                return status.no_answer(GUESTWIRE, name, kind, problem, _seconds_since(guest.observed_at(kind)))
        return None

    def _worth_reading(self, answer: Answer, max_age: float) -> bool:
        """Not a guest that is unknown, has no agent, or was just read; but one that was never read."""
        if answer.status == 200:
            return time.time() - answer.observed > max_age
        return answer.status == 404

    async def _find_anew(self, group: Group, ref: GuestRef, kind: str, before: Answer) -> Answer:
        guest = self._cache.guest(ref)
        if guest is None:
            return before
        try:
            await self._read(ref, kind)
        except TooMany:
            return status.too_many_readings()
        except TransientError as error:
            return status.no_answer(group, ref.name, kind, str(error), _age(before))
        answer = self._cache.find(group, ref, kind)
        problem = guest.presence.errors.get(kind) if guest.presence else None
        if problem:
            return status.no_answer(group, ref.name, kind, problem, _age(answer))
        return answer

    async def _read(self, ref: GuestRef, what: str) -> None:
        """Have a kind read, or all, and wait until the outcome is known here. Raises TooMany, or what went wrong."""
        if (ref, what) not in self._reading:
            if self._read_now is None:
                raise NotConnected("there is no NATS to ask")
            if len(self._reading) >= MOST:
                raise TooMany
            task = asyncio.ensure_future(self._read_now(ref, what))
            task.add_done_callback(lambda _done: self._reading.pop((ref, what), None))
            self._reading[ref, what] = task, datetime.now(UTC) - MOMENT
        task, no_earlier = self._reading[ref, what]
        revisions = await asyncio.shield(task)
        if not await self._cache.fleet.reached(max(revisions.values(), default=0), PATIENCE):
            raise NotConnected("it was read, but the stream has not come that far here")
        self._cache.seen(ref, None if what == ALL else what, no_earlier)

    def _last_known(self, ref: GuestRef, kind: str) -> Answer | None:
        guest = self._cache.guest(ref)
        fact = guest.last_known(kind) if guest else None
        if guest is None or fact is None:
            return None
        answer = of_body(fact.body, fact.revision, fact.changed_at, guest.observed_at(kind))
        return msgspec.structs.replace(answer, head=answer.head + STALE)


def _oldest(guest: Guest) -> float | None:
    """Seconds since that was seen which was seen least of late; None where nothing, or not all of it, ever was."""
    ages = [_seconds_since(guest.observed_at(kind)) for kind in guest.told()]
    return None if None in ages else max((age for age in ages if age is not None), default=None)


def _seconds_since(moment: datetime) -> float | None:
    return time.time() - moment.timestamp() if moment > BEGINNING else None


def _age(answer: Answer) -> float | None:
    """Seconds since what it tells was seen."""
    return time.time() - answer.observed if answer.status == 200 and answer.observed else None
