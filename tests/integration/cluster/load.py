"""Guests that change all the time, their publisher, and its readers; and what must hold of them whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from api.cache import Cache
from guestwire import client, codec, subjects
from guestwire.follower import Follower
from guestwire.jetstream import Bus, Message
from guestwire.lifecycle import cancel
from guestwire.settings import Nats, Publish
from guestwire.snapshot import (
    AgentState,
    FilesystemInfo,
    GuestOSInfo,
    GuestRef,
    GuestSnapshot,
    Kind,
    ListMeta,
    OperatingSystem,
    Part,
    Phase,
    Reading,
    User,
    UserList,
)
from publishers.jetstream import JetStreamPublisher
from status_writer.consumer import Consumer
from status_writer.inbox import Delivery

BEGAN = datetime(2026, 2, 3, tzinfo=UTC)
PACE = 0.05
"""Seconds between two changes of a guest."""
PATIENT, HASTY = 10, 10
"""Guests whose next change waits for the acknowledgement of the one before; and those whose does not."""

Subject = str


def snapshot(ref: GuestRef, number: int) -> GuestSnapshot:
    """What a guest says the so-manieth time: mostly one fact, every third time two."""
    observed = BEGAN + timedelta(seconds=number)
    state = AgentState("ns", ref.name, "uid", "d", "u", "h", Phase.RUNNING, channel=True, connected=True, since=BEGAN,
                       readings={Kind.GUESTOSINFO: Reading(observed)})  # fmt: skip
    system = GuestOSInfo(FilesystemInfo(None), OperatingSystem(id="debian", version=f"{number:06}"), "UTC, 0")
    users = UserList((User(f"u{number // 3:06}"),), ListMeta())
    parts = (
        codec.part(Kind.AGENT, state, observed),
        codec.part(Kind.GUESTOSINFO, system, observed),
        codec.part(Kind.USERLIST, users, observed),
    )
    return GuestSnapshot(ref, "uid", "h", parts, codec.new_trace_id())


class Watched(Cache):
    """The API's cache, which notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.revisions: list[int] = []

    def begin(self) -> None:
        self.begun += 1
        super().begin()

    def apply(self, message: Message) -> bool:
        self.revisions.append(message.revision)
        return super().apply(message)


@dataclass
class Acknowledged:
    """A value that the publisher says is on the stream, at a revision."""

    revision: int
    body: bytes


@dataclass
class Load:
    """One publisher and its guests, the API's cache, and a durable consumer as the status writer's."""

    bus: Bus
    readers: Bus
    cache: Watched = field(default_factory=Watched)
    acknowledged: defaultdict[Subject, list[Acknowledged]] = field(default_factory=lambda: defaultdict(list))
    offered: dict[GuestRef, GuestSnapshot] = field(default_factory=dict)
    fenced: list[GuestRef] = field(default_factory=list)
    received: dict[Subject, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.publisher = JetStreamPublisher(self.bus, "c", Publish(heartbeat=1e9))
        self.publisher.on_fenced = self._look_again
        self._settling: set[asyncio.Task[None]] = set()
        self._changing = True

    @classmethod
    @asynccontextmanager
    async def on(cls, publishes_to: Nats, reads_from: Nats) -> AsyncIterator[Self]:
        """All at work, until the end of the context."""
        stop = asyncio.Event()
        async with Bus(publishes_to, "publisher") as bus, Bus(reads_from, "readers") as readers:
            load = cls(bus, readers)
            await bus.ensure_stream_patiently(asyncio.Event())
            consumer = Consumer(readers, "c", "status-writer", load._receive)
            tasks = [
                asyncio.create_task(work)
                for work in (
                    load.publisher.run(),
                    Follower(readers, subjects.pattern(), load.cache).run(),
                    consumer.run(stop),
                    *(load._change(GuestRef("ns", f"patient{number}"), wait=True) for number in range(PATIENT)),
                    *(load._change(GuestRef("ns", f"hasty{number}"), wait=False) for number in range(HASTY)),
                )
            ]
            try:
                yield load
            finally:
                stop.set()
                await cancel(*tasks, *load._settling)

    @property
    def count(self) -> int:
        """Acknowledgements so far."""
        return sum(map(len, self.acknowledged.values()))

    async def progress(self, more: int = 100, within: float = 60) -> None:
        """Wait for so many acknowledgements from now on."""
        wanted = self.count + more
        await until(lambda: self.count >= wanted, within, f"{more} more acknowledgements")

    async def settle(self, within: float = 120) -> None:
        """No more changes; wait until all of them are published, and have reached the readers."""
        self._changing = False
        async with asyncio.timeout(within):
            for ref in self.offered:
                await self.publisher.settled(ref)
        await until(lambda: self._wanted() == self.cached(), within, "the cache is level")
        await until(self._delivered, within, "the durable consumer is level")

    def cached(self) -> dict[Subject, bytes]:
        """The API's present values."""
        found = {}
        for ref in self.offered:
            guest = self.cache.guest(ref)
            for kind, fact in (guest.facts if guest else {}).items():
                found[subjects.subject("c", ref, kind)] = fact.body
        return found

    async def check(self, bus: Bus) -> None:
        """Nothing acknowledged is lost, nothing older follows something newer, and all agree on the last values."""
        values: defaultdict[Subject, dict[int, bytes]] = defaultdict(dict)
        async for message in client.follow(bus, after=0, live=False):
            values[message.address.subject][message.revision] = message.body
        lost = [
            (subject, one.revision)
            for subject, some in self.acknowledged.items()
            for one in some
            if values[subject].get(one.revision) != one.body
        ]
        bodies = {subject: list(by_revision.values()) for subject, by_revision in values.items()}

        assert [] == lost
        assert [] == [subject for subject, some in bodies.items() if some != sorted(set(some))]
        assert self._wanted() == {subject: some[-1] for subject, some in bodies.items()}
        assert self._wanted() == self.cached()
        assert self.cache.revisions == sorted(set(self.cache.revisions))
        assert 1 == self.cache.begun

    def _wanted(self) -> dict[Subject, bytes]:
        return {
            subjects.subject("c", ref, part.kind): part.body
            for ref, last in self.offered.items()
            for part in self._published(ref, last.parts)
        }

    def _published(self, ref: GuestRef, parts: Sequence[Part]) -> Sequence[Part]:
        """The agent record goes out at first only: reading times alone are no news."""
        return [snapshot(ref, 1).parts[0], *parts[1:]]

    def _delivered(self) -> bool:
        wanted = self._wanted()
        return all(wanted[subject] == message.body for subject, message in self.received.items()) and 2 * len(
            self.offered
        ) == len(self.received)

    async def _change(self, ref: GuestRef, *, wait: bool) -> None:
        number = 0
        while self._changing:
            number += 1
            self.offered[ref] = told = snapshot(ref, number)
            self.publisher.offer(told)
            if wait:
                await self._acknowledge(told)
            await asyncio.sleep(PACE)

    async def _acknowledge(self, told: GuestSnapshot) -> None:
        fenced = len(self.fenced)
        revisions = await self.publisher.settled(told.ref)
        if fenced != len(self.fenced):
            return
        for part in told.parts[1:]:
            one = Acknowledged(revisions[part.kind], part.body)
            some = self.acknowledged[subjects.subject("c", told.ref, part.kind)]
            if one not in some[-1:]:
                some.append(one)

    def _look_again(self, ref: GuestRef) -> None:
        """As the collector does: the guest is here, and has its say again."""
        self.fenced.append(ref)
        self.publisher.offer(self.offered[ref])

    def _receive(self, delivery: Delivery) -> None:
        """As the status writer does: the newest counts, then it is settled."""
        message = delivery.message
        known = self.received.get(message.address.subject)
        if known is None or known.revision < message.revision:
            self.received[message.address.subject] = message
        task = asyncio.create_task(self._settle(delivery))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, delivery: Delivery) -> None:
        if self.readers.connected:
            await delivery.msg.ack()


async def until(condition: Callable[[], bool], within: float, what: str) -> None:
    """Wait for it, up to so many seconds."""
    began = time.monotonic()
    while True:
        if condition():
            return
        assert time.monotonic() - began < within, f"not within {within} s: {what}"
        await asyncio.sleep(0.05)
