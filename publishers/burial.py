"""
Guests that nobody will tell of again: their host was given up, or its collector was.

The last word about a guest is its collector's. Where none comes back to say it, readers would have the guest for ever;
so an operator has it said here, just as a collector would (`publishers.ledger`, `publishers.single`): fenced by what
was looked at. Whoever says anything about the guest in between is right, and the guest stays. Should it be said of
one that runs all the same, its collector is fenced off, looks again, and tells all of it anew.

What is kept of a guest can be deleted at once, but for the last word itself: a reader that was away resumes behind a
revision, and one that is there may not have been sent it yet. It leaves as that of every guest does
(`publishers.retention`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import msgspec

from guestwire import client, codec
from guestwire.errors import ContractError, GuestwireError, NotConnected
from guestwire.jetstream import Bus, Message
from guestwire.last_word import gone, is_gone
from guestwire.logs import logger
from guestwire.settings import Publish
from guestwire.snapshot import AgentState, GuestRef, Kind, Phase
from publishers import single
from publishers.ledger import Ledger
from publishers.single import Fenced, Outcome, TooLarge

log = logger("publisher")

TRIES = 3
"""Of a last word that is not acknowledged; all have one message id, so that it is said once."""


class Found(msgspec.Struct, frozen=True):
    """A guest as it was last told of."""

    ref: GuestRef
    agent: AgentState
    host: str
    """Whose collector said so."""
    heard: datetime
    """When anything about it was read, or said, for the last time."""
    revision: int
    """Of the newest message about it."""

    @property
    def gone(self) -> bool:
        """Its last word has been said."""
        return self.agent.phase is Phase.GONE


class Burial:
    """Of the guests of one cluster. What asks the stream raises NotConnected."""

    def __init__(self, bus: Bus, cluster: str, settings: Publish) -> None:
        self._bus = bus
        self._cluster = cluster
        self._ledger = Ledger(bus, cluster, settings)

    async def of_host(self, host: str) -> list[Found]:
        """The guests of which that host told last, also those that are gone."""
        refs = [
            message.address.ref
            async for message in client.follow(self._bus, cluster=self._cluster, kind=Kind.AGENT, live=False)
            if message.event.host == host
        ]
        return [found for found in await self.of(refs) if found.host == host]

    async def of(self, refs: Collection[GuestRef]) -> list[Found]:
        """Those of some guests that the stream knows, in the order of their names."""
        loaded = await self._ledger.load_all(sorted(set(refs)))
        return [found for ref, messages in loaded.items() if (found := _found(ref, messages))]

    async def bury(self, found: Found) -> bool:
        """Say its last word; False when somebody has told of the guest since it was found."""
        messages = await self._ledger.load(found.ref)
        if max((message.revision for message in messages.values()), default=0) != found.revision:
            return False
        snapshot = gone(found.agent, codec.new_trace_id(), codec.now())
        page = self._ledger.page(found.ref)
        assert page is not None  # noqa: S101 - it was just loaded
        message = self._ledger.message(page, snapshot, snapshot.parts[0])
        outcome: Outcome = None
        for _ in range(TRIES):
            [outcome] = await single.publish(self._bus, [message])
            if not isinstance(outcome, NotConnected):
                break
        match outcome:
            case NotConnected():
                raise outcome
            case TooLarge():
                raise GuestwireError(f"the last word about {found.ref} is larger than the NATS server takes")
            case Fenced():
                return False
        log.info("guest is gone", guest=str(found.ref), host=found.host)
        return True

    async def purge(self, ref: GuestRef) -> bool:
        """Delete what is kept of a guest that is gone, up to its last word, which stays; False when it is not gone."""
        last = (await self._ledger.load(ref)).get(Kind.AGENT)
        if last is None or not is_gone(last.body):
            return False
        await self._bus.delete(self._cluster, ref, last.revision - 1, spare=Kind.AGENT)
        return True


def _found(ref: GuestRef, messages: Mapping[str, Message]) -> Found | None:
    last = messages.get(Kind.AGENT)
    try:
        agent = codec.decode(last.body, AgentState) if last else None
    except ContractError:
        agent = None
    if last is None or agent is None:
        return None
    heard = max(message.event.time for message in messages.values())
    revision = max(message.revision for message in messages.values())
    return Found(ref, agent, last.event.host, heard, revision)
