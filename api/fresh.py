"""
Reads that ask for more than the cache: a value no older than so much, or one of a guest whose agent is away.

For the first the guest is read, by a request to its collector over NATS: many who ask for the same cause one request,
and only so many are under way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from api import status
from api.answers import Answer, of_body
from api.cache import Cache
from api.groups import Group
from api.lists import PATIENCE
from api.options import OptionError
from guestwire.errors import TransientError
from guestwire.snapshot import GuestRef

MOST = 64
"""Guests that are read at once."""

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


def seconds(text: str) -> float:
    """Of a duration as Go writes it, or a number. Raises OptionError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text) if len(text) <= 40 else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise OptionError(f"maxAge: {text[:40]!r} is no duration; such are 5s, 500ms, 1m30s")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


class Fresh:
    """`read_now` is None where there is no NATS to ask."""

    def __init__(self, cache: Cache, read_now: ReadNow | None) -> None:
        self._cache = cache
        self._read_now = read_now
        self._reading: dict[tuple[GuestRef, str], asyncio.Task[Mapping[str, int]]] = {}

    async def find(self, group: Group, ref: GuestRef, kind: str, wish: Wish) -> Answer:
        """The answer to a read."""
        answer = self._cache.find(group, ref, kind)
        if answer.status == 409 and wish.stale:
            return self._last_known(ref, kind) or answer
        if wish.max_age is None or not self._worth_reading(answer, wish.max_age):
            return answer
        return await self._read(group, ref, kind, answer)

    def _worth_reading(self, answer: Answer, max_age: float) -> bool:
        """Not a guest that is unknown, has no agent, or was just read; but one that was never read."""
        if answer.status == 200:
            return time.time() - answer.observed > max_age
        return answer.status == 404

    async def _read(self, group: Group, ref: GuestRef, kind: str, before: Answer) -> Answer:
        guest = self._cache.guest(ref)
        if guest is None or self._read_now is None:
            return before
        asked_at = time.time()
        task = self._reading.get((ref, kind))
        if task is None:
            if len(self._reading) >= MOST:
                return status.too_many_readings()
            task = self._reading[ref, kind] = asyncio.ensure_future(self._read_now(ref, kind))
            task.add_done_callback(lambda _done: self._reading.pop((ref, kind), None))
        try:
            revisions = await asyncio.shield(task)
        except TransientError as error:
            return status.no_answer(group, ref.name, kind, str(error), _age(before))
        await self._cache.fleet.reached(max(revisions.get(kind, 0), revisions.get("agent", 0)), PATIENCE)
        answer = self._cache.find(group, ref, kind)
        problem = guest.presence.errors.get(kind) if guest.presence else None
        if problem:
            return status.no_answer(group, ref.name, kind, problem, _age(answer))
        return msgspec.structs.replace(answer, observed=asked_at) if answer.status == 200 else answer

    def _last_known(self, ref: GuestRef, kind: str) -> Answer | None:
        guest = self._cache.guest(ref)
        fact = guest.last_known(kind) if guest else None
        if guest is None or fact is None:
            return None
        answer = of_body(fact.body, fact.revision, fact.changed_at, guest.observed_at(kind))
        why = b'warning: 110 guestwire "the agent is away; this is the last value known"\r\n'
        return msgspec.structs.replace(answer, head=answer.head + why)


def _age(answer: Answer) -> float | None:
    """Seconds since what it tells was seen."""
    return time.time() - answer.observed if answer.status == 200 and answer.observed else None
