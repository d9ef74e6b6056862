"""
Guests that left the stream without a last word: an operator purged their subjects.

No message tells of a purge, so whoever follows the stream goes on with what it knows. The stream's state shows it:
fewer messages are there than came. Mostly that is history, of which only the last are kept; but then the number of
subjects stays. Where it does not, and from time to time in any case, the names of the subjects are asked for, and when
a guest that was known before has none any more, the stream is read anew.

It is the agent record's subject that is looked for, as without it there is no guest. That a single other kind of facts
was purged is not noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec

from guestwire import subjects
from guestwire.errors import ContractError, NotConnected, TransientError
from guestwire.jetstream import Bus, translated
from guestwire.logs import logger
from guestwire.snapshot import GuestRef, Kind
from guestwire.subjects import Address

log = logger("api")

PACE = 30.0
"""Seconds between two looks at the stream's state."""
IN_ANY_CASE = 10
"""Looks until names are asked for though there are as many subjects as before: as many may have come as went."""


class State(msgspec.Struct, frozen=True):
    """Of a stream (NATS ADR-1, `io.nats.jetstream.api.v1.stream_info_response`)."""

    messages: int = 0
    last_seq: int = 0
    num_subjects: int = 0
    subjects: dict[str, int] = {}
    """Those asked for, with their messages."""

    def lost(self, before: State) -> bool:
        """Whether not all is there that was, and what came since."""
        return self.last_seq - before.last_seq > self.messages - before.messages


class Info(msgspec.Struct, frozen=True):
    """What the server says of a stream."""

    created: str
    state: State
    total: int = 0
    """Of the subjects asked for, which come in parts."""


_info = msgspec.json.Decoder(Info)


class Purges:
    """`guests` tells who is known, `begin_anew` has the stream read anew."""

    def __init__(
        self, bus: Bus, cluster: str, guests: Callable[[], Iterable[GuestRef]], begin_anew: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._agents = subjects.pattern(cluster=cluster, kind=Kind.AGENT)
        self._guests = guests
        self._begin_anew = begin_anew
        self._before: Info | None = None
        self._looks = 0
        self._lost = True
        """Since names were asked for; what was before the first time nobody knows."""

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        while True:
            await asyncio.sleep(PACE)
            with suppress(TransientError):  # it is looked again, and the connection is told of elsewhere
                await self.look()

    async def look(self) -> None:
        """Once. Raises NotConnected."""
        info, before = await self._ask({}), self._before
        if before and info.created == before.created:  # another stream is the follower's to notice
            self._lost = self._lost or info.state.lost(before.state)
        changed = before is None or info.state.num_subjects != before.state.num_subjects
        if self._lost and (changed or not self._looks % IN_ANY_CASE):
            if missing := await self._missing():
                log.warning("guests left the stream without a last word, reading it anew", guests=missing)
                self._begin_anew()
            self._lost = False
        self._before, self._looks = info, self._looks + 1

    async def _missing(self) -> int:
        """How many guests known before the stream was asked have no agent record in it."""
        known, found = set(self._guests()), set[GuestRef]()
        offset, total = 0, 1
        while offset < total:
            info = await self._ask({"subjects_filter": self._agents, "offset": offset})
            found |= await asyncio.to_thread(_refs, info.state.subjects)
            offset, total = offset + len(info.state.subjects), info.total if info.state.subjects else 0
        return len(known - found)

    async def _ask(self, request: dict[str, object]) -> Info:
        stream = self._bus.settings.stream
        with translated(f"stream {stream}"):
            answer = await self._bus.client.request(
                f"$JS.API.STREAM.INFO.{stream}", msgspec.json.encode(request), timeout=self._bus.settings.timeout
            )
        try:
            return await asyncio.to_thread(_info.decode, answer.data)
        except msgspec.DecodeError as error:
            raise NotConnected(f"stream {stream}: {error}") from error


def _refs(names: Iterable[str]) -> set[GuestRef]:
    found = set()
    for name in names:
        with suppress(ContractError):
            found.add(Address.parse(name).ref)
    return found
