"""The publisher against a real nats-server: once, in order, fenced, and nothing lost while NATS is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from guestwire import client, codec, subjects
from guestwire.jetstream import Bus, Message
from guestwire.settings import Publish
from guestwire.snapshot import (
    AgentState,
    GuestRef,
    GuestSnapshot,
    Kind,
    ListMeta,
    Part,
    Phase,
    Reading,
    User,
    UserList,
)
from lab.nats_server import NatsServer
from publishers.jetstream import JetStreamPublisher

REF = GuestRef("ns", "vm.1")
NOW = datetime(2026, 2, 3, tzinfo=UTC)
Eventually = Callable[..., Awaitable[float]]


def agent(observed: datetime = NOW, phase: Phase = Phase.RUNNING) -> Part:
    """An agent record, read at that time."""
    state = AgentState("ns", "vm.1", "uid", "d", "u", "h", phase, channel=True, connected=True, since=NOW,
                       readings={"guest-info": Reading(observed)})  # fmt: skip
    return codec.part(Kind.AGENT, state, observed)


def users(*names: str) -> Part:
    """A list of users."""
    return codec.part(Kind.USERLIST, UserList(tuple(map(User, names)), ListMeta()), NOW)


def snapshot(*parts: Part, ref: GuestRef = REF, host: str = "h") -> GuestSnapshot:
    """A snapshot of those parts."""
    return GuestSnapshot(ref, "uid", host, parts, codec.new_trace_id())


class Running:
    """A publisher at work."""

    def __init__(self, bus: Bus) -> None:
        self.fenced: list[GuestRef] = []
        self.publisher = JetStreamPublisher(bus, "c", Publish(heartbeat=60))
        self.publisher.on_fenced = self.fenced.append
        self.task = asyncio.create_task(self.publisher.run())

    async def drain(self) -> None:
        """Publish what is left and end."""
        self.publisher.close()
        await asyncio.wait_for(self.task, 20)


@pytest.fixture
async def running(bus: Bus) -> AsyncIterator[Running]:
    """A publisher that ends with the test."""
    one = Running(bus)
    yield one
    one.task.cancel()


async def history(bus: Bus) -> list[Message]:
    """Every message of the stream."""
    return [message async for message in client.follow(bus, after=0, live=False)]


async def test_what_arrives(bus: Bus, running: Running) -> None:
    """Body, subject, CloudEvents headers; the body's bytes are those of the snapshot."""
    part = users("bob")
    running.publisher.offer(snapshot(part))
    await running.drain()
    [message] = await history(bus)

    assert part.body == message.body
    assert "guestwire.v1.c.ns.vm=2E1.userlist" == message.address.subject
    assert ("uid", "h", NOW) == (message.event.uid, message.event.host, message.event.time)
    assert {
        "ce-specversion": "1.0",
        "ce-type": "io.guestwire.guest.userlist.v1",
        "ce-source": "/guestwire/c/h",
        "ce-subject": "ns/vm.1",
        "ce-datacontenttype": "application/json",
        "ce-id": message.headers["Nats-Msg-Id"],
    }.items() <= message.headers.items()


async def test_unchanged_is_not_published_again(bus: Bus, running: Running) -> None:
    """Neither by this publisher nor by the next one."""
    running.publisher.offer(snapshot(agent(), users("bob")))
    await asyncio.sleep(0.2)
    running.publisher.offer(snapshot(agent(NOW + timedelta(seconds=30)), users("bob")))
    await running.drain()
    again = Running(bus)
    again.publisher.offer(snapshot(agent(NOW + timedelta(seconds=40)), users("bob")))
    await again.drain()

    assert ["agent", "userlist"] == [message.address.kind for message in await history(bus)]


async def test_back_and_forth(bus: Bus, running: Running, eventually: Eventually) -> None:
    """A value that returns within NATS's window for doubles is a change all the same."""
    for names in (["a"], ["b"], ["a"], ["b"]):
        running.publisher.offer(snapshot(users(*names)))
        await asyncio.sleep(0.1)
    await running.drain()

    assert [b"a", b"b", b"a", b"b"] == [b"a" if b'"a"' in m.body else b"b" for m in await history(bus)]


async def test_heartbeat(bus: Bus, running: Running) -> None:
    """An unchanged agent record goes out again when its heartbeat is due, with its reading times."""
    for seconds in (0, 30, 61, 90, 122):
        running.publisher.offer(snapshot(agent(NOW + timedelta(seconds=seconds))))
        await asyncio.sleep(0.1)
    await running.drain()

    assert [0, 61, 122] == [(message.event.time - NOW).total_seconds() for message in await history(bus)]


async def test_coalesces(bus: Bus, running: Running) -> None:
    """Offers that come faster than they can be sent: the newest counts, the order stays."""
    for number in range(500):
        running.publisher.offer(snapshot(users(f"u{number}")))
        if number % 50 == 0:
            await asyncio.sleep(0.001)
    await running.drain()
    bodies = [message.body for message in await history(bus)]

    assert b'"u499"' in bodies[-1]
    assert len(bodies) < 100


async def test_nats_away(nats_server: NatsServer, bus: Bus, running: Running, eventually: Eventually) -> None:
    """While NATS is away the newest snapshot of each guest is kept, and sent once when it is back."""
    running.publisher.offer(snapshot(users("before")))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(nats_server.kill)
    for number in range(20):
        for guest in range(5):
            running.publisher.offer(snapshot(users(f"u{number}"), ref=GuestRef("ns", f"g{guest}")))
        running.publisher.offer(snapshot(users(f"u{number}")))
        await asyncio.sleep(0.05)
    await asyncio.to_thread(nats_server.start)
    await eventually(lambda: bus.connected)
    await running.drain()
    messages = await history(bus)

    assert 1 + 6 == len(messages)
    assert all(b'"u19"' in message.body for message in messages[1:])


async def test_fence(bus: Bus, running: Running) -> None:
    """Two hosts: who publishes on an old expectation is told, and sends nothing until it has looked again."""
    other = Running(bus)
    running.publisher.offer(snapshot(users("one")))
    await asyncio.sleep(0.2)
    other.publisher.offer(snapshot(users("two"), host="h2"))
    await asyncio.sleep(0.2)
    running.publisher.offer(snapshot(users("three")))
    await asyncio.sleep(0.2)
    looked = ([b"one", b"two"], [REF])
    assert looked == ([_name(m) for m in await history(bus)], running.fenced)

    running.publisher.offer(snapshot(users("three")))
    await running.drain()
    await other.drain()
    assert [b"one", b"two", b"three"] == [_name(message) for message in await history(bus)]


async def test_gone(bus: Bus, running: Running) -> None:
    """A guest's last word goes out once; recalling the host's guests leaves it out."""
    running.publisher.offer(snapshot(agent(), users("bob")))
    await asyncio.sleep(0.2)
    assert ["vm.1"] == [state.name for state in await running.publisher.recall_hosts({"h"})]
    running.publisher.offer(snapshot(agent(phase=Phase.GONE)))
    await asyncio.sleep(0.2)

    assert [] == await running.publisher.recall_hosts({"h"})
    assert {"agent", "userlist"} == set(await running.publisher.recall(REF))


async def test_returns_after_gone(bus: Bus, running: Running) -> None:
    """Readers forget a guest that is gone; when it returns unchanged, everything is published anew."""
    for part in (agent(), agent(phase=Phase.GONE), agent()):
        running.publisher.offer(snapshot(part, *([] if b"Gone" in part.body else [users("bob")])))
        await asyncio.sleep(0.2)
    await running.drain()

    assert ["agent", "userlist", "agent", "agent", "userlist"] == [m.address.kind for m in await history(bus)]


async def test_another_uid(bus: Bus, running: Running) -> None:
    """Equal facts of another guest under the same name are published: they are about someone else."""
    for uid in ("one", "two"):
        running.publisher.offer(GuestSnapshot(REF, uid, "h", (users("bob"),), codec.new_trace_id()))
        await asyncio.sleep(0.2)
    await running.drain()

    assert ["one", "two"] == [message.event.uid for message in await history(bus)]


async def test_too_large(bus: Bus, running: Running) -> None:
    """A body over the server's limit is dropped, and the rest of the guest still goes out."""
    running.publisher.offer(snapshot(users("u" * 2_000_000), agent()))
    await running.drain()

    assert ["agent"] == [message.address.kind for message in await history(bus)]


async def test_foreign_message_on_the_subject(bus: Bus, running: Running) -> None:
    """Something unreadable under our subject is replaced by what is true."""
    part = agent()
    headers = codec.event_headers(
        ref=REF, uid="uid", cluster="c", host="h", part=part, message_id="x", trace_id=codec.new_trace_id()
    )
    await bus.js.publish(subjects.subject("c", REF, Kind.AGENT), b"{", headers=headers)
    running.publisher.offer(snapshot(part))
    await running.drain()

    assert [b"{", part.body] == [message.body for message in await history(bus)]


def _name(message: Message) -> bytes:
    return message.body.split(b'"userName":"')[1].split(b'"')[0]
