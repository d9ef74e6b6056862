"""
What the stream knows last about a guest, read when it is needed.

Reads that are asked for while one is under way travel together: one request for the last message of each subject, of
all these guests, and one run of answers. A read always begins after it was asked for, so it is never older than
whatever its caller knew at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from guestwire.codec import decode
from guestwire.errors import ContractError
from guestwire.jetstream import Bus, Message
from guestwire.logs import logger
from guestwire.snapshot import AgentState, Body, GuestOSInfo, GuestRef, Interfaces, Kind
from guestwire.subjects import subject
from status_writer.merge import doubtful
from status_writer.status_patch import Facts, Vmi

log = logger("status")

KINDS = (Kind.AGENT, Kind.GUESTOSINFO, Kind.INTERFACES)
"""What VMI status is made of."""

TOGETHER = 256
"""Guests per request; JetStream answers at most 1024 subjects."""

HISTORY = 64
"""Messages of one subject that are read at most; the stream keeps no more by default."""

B = TypeVar("B", bound=Body)
Last = dict[str, Message]
"""The last message by kind."""


class FactsReader:
    """Reads while `run` runs."""

    def __init__(self, bus: Bus, cluster: str) -> None:
        self._bus = bus
        self._cluster = cluster
        self._asked: dict[GuestRef, asyncio.Future[Last]] = {}
        self._wake = asyncio.Event()
        self._told: dict[GuestRef, tuple[int, frozenset[str]]] = {}

    async def about(self, ref: GuestRef, vmi: Vmi, received: Iterable[Message] = ()) -> Facts:
        """
        The facts about a VMI's guest. A message in hand counts when a lagging replica of the stream answers with an
        older one. Facts about another incarnation of the guest are none. Raises TransientError.
        """
        if ref not in self._asked:
            self._asked[ref] = asyncio.get_running_loop().create_future()
            self._wake.set()
        last = dict(await asyncio.shield(self._asked[ref]))
        for message in received:
            kind = message.address.kind
            if kind not in last or last[kind].revision < message.revision:
                last[kind] = message
        agent = _body(last.get(Kind.AGENT), AgentState)
        if agent is None:
            return Facts()
        last = {kind: message for kind, message in last.items() if message.event.uid == agent.uid}
        state, network = last.get(Kind.AGENT), last.get(Kind.INTERFACES)
        interfaces = _body(network, Interfaces)
        return Facts(
            agent,
            state.event.time if state else None,
            interfaces,
            await self._told_once(ref, network) if network and doubtful(vmi, interfaces) else frozenset(),
            _body(last.get(Kind.GUESTOSINFO), GuestOSInfo),
        )

    def forget(self, ref: GuestRef) -> None:
        """The VMI is gone."""
        self._told.pop(ref, None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            asked = {ref: self._asked.pop(ref) for ref in list(self._asked)[:TOGETHER]}
            if not self._asked:
                self._wake.clear()
            try:
                found = await self._read(asked)
            except Exception as error:
                for future in asked.values():
                    future.set_exception(error)
                    future.exception()  # nobody may be left to see it
            else:
                for ref, future in asked.items():
                    future.set_result(found.get(ref, {}))

    async def _told_once(self, ref: GuestRef, latest: Message) -> frozenset[str]:
        """Every address in the subject's history, which is read again when there is more of it."""
        revision, told = self._told.get(ref, (0, frozenset()))
        if revision != latest.revision:
            history = await self._bus.get(
                {"batch": HISTORY, "seq": 1, "next_by_subj": latest.address.subject}, "last messages"
            )
            views = [_body(each, Interfaces) for each in history if each.event.uid == latest.event.uid]
            told = frozenset(
                each.address for view in views if view for guest in view.guest or () for each in guest.addresses
            )
            self._told[ref] = (latest.revision, told)
        return told

    async def _read(self, refs: Iterable[GuestRef]) -> dict[GuestRef, Last]:
        found: dict[GuestRef, Last] = {}
        wanted = [subject(self._cluster, ref, kind) for ref in refs for kind in KINDS]
        for message in await self._bus.get({"multi_last": wanted}, "last messages"):
            found.setdefault(message.address.ref, {})[message.address.kind] = message
        return found


def _body(message: Message | None, kind: type[B]) -> B | None:
    """A message's body; None, which is unknown, where there is none or it does not follow the contract."""
    if message is None:
        return None
    try:
        return decode(message.body, kind)
    except ContractError as error:
        log.warning("message does not follow the contract", subject=message.address.subject, error=str(error))
        return None
