"""Atomic batches on a real nats-server: together when all is well, one by one when not, and nothing lost or doubled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY

from guestwire import client, codec
from guestwire.jetstream import Bus, Message, stream_config
from guestwire.settings import Publish
from guestwire.snapshot import Filesystem, FilesystemList, GuestRef, GuestSnapshot, Kind, ListMeta, Part, User, UserList
from lab.nats_server import NatsServer
from publishers.jetstream import JetStreamPublisher

NOW = datetime(2026, 2, 3, tzinfo=UTC)
Eventually = Callable[..., Awaitable[float]]


def users(name: str) -> Part:
    """A list of one user."""
    return codec.part(Kind.USERLIST, UserList((User(name),), ListMeta()), NOW)


def filesystems(name: str) -> Part:
    """A list of one filesystem."""
    return codec.part(Kind.FILESYSTEMLIST, FilesystemList((Filesystem(name, "/", "ext4", 0, 0),), ListMeta()), NOW)


def snapshot(number: int, *parts: Part, host: str = "h") -> GuestSnapshot:
    """About one guest of many."""
    return GuestSnapshot(GuestRef("ns", f"vm{number}"), "uid", host, parts, codec.new_trace_id())


@pytest.fixture
async def publisher(bus: Bus) -> AsyncIterator[JetStreamPublisher]:
    """A publisher at work."""
    one = JetStreamPublisher(bus, "c", Publish(heartbeat=60))
    task = asyncio.create_task(one.run())
    yield one
    task.cancel()


async def offer(publisher: JetStreamPublisher, *snapshots: GuestSnapshot) -> None:
    """Offer them at the same moment, and wait until they are published."""
    for one in snapshots:
        publisher.offer(one)
    for one in snapshots:
        await asyncio.wait_for(publisher.settled(one.ref), 60)


async def history(bus: Bus) -> list[Message]:
    """Every message of the stream."""
    return [message async for message in client.follow(bus, after=0, live=False)]


def acknowledgements() -> float:
    """How many were waited for so far."""
    return REGISTRY.get_sample_value("guestwire_publisher_ack_seconds_count") or 0.0


async def test_facts_of_one_look_go_together(bus: Bus, publisher: JetStreamPublisher) -> None:
    """All kinds of a guest become visible at once, each message with its own id, and their revisions are known."""
    await offer(publisher, snapshot(1, users("a"), filesystems("b")))
    first, second = await history(bus)

    assert first.headers["Nats-Batch-Id"] == second.headers["Nats-Batch-Id"]
    assert first.headers["Nats-Msg-Id"] != second.headers["Nats-Msg-Id"]
    assert {Kind.USERLIST: first.revision, Kind.FILESYSTEMLIST: second.revision} == publisher.revisions(
        GuestRef("ns", "vm1")
    )


async def test_burst(bus: Bus, publisher: JetStreamPublisher) -> None:
    """A burst takes few acknowledgements, and the fences it leaves behind are right: the next change goes through."""
    before = acknowledgements()
    await offer(publisher, *(snapshot(number, users("a"), filesystems("b")) for number in range(1000)))
    assert 2000 == len(await history(bus))
    assert acknowledgements() - before < 100

    await offer(publisher, *(snapshot(number, users("c"), filesystems("b")) for number in range(1000)))
    counted = Counter(message.address.kind for message in await history(bus))
    assert {Kind.USERLIST: 2000, Kind.FILESYSTEMLIST: 1000} == counted


async def test_one_fence_does_not_hold(bus: Bus, publisher: JetStreamPublisher) -> None:
    """A guest that another host has published about is left out; all others of the batch are published."""
    fenced: list[GuestRef] = []
    publisher.on_fenced = fenced.append
    await offer(publisher, *(snapshot(number, users("a")) for number in range(20)))
    other = JetStreamPublisher(bus, "c", Publish(heartbeat=60))
    task = asyncio.create_task(other.run())
    await offer(other, snapshot(7, users("theirs"), host="h2"))
    other.close()
    await task
    await offer(publisher, *(snapshot(number, users("b")) for number in range(20)))

    last = {message.address.ref.name: message.body for message in await history(bus)}
    assert [GuestRef("ns", "vm7")] == fenced
    assert {f"vm{n}": users("theirs" if n == 7 else "b").body for n in range(20)} == last


async def test_stream_without_batches(bus: Bus, publisher: JetStreamPublisher) -> None:
    """An operator's stream that takes no batches gets messages one by one, also when that is found out only now."""
    config = stream_config(bus.settings)
    config.allow_atomic = False
    await bus.js.update_stream(config)
    assert [True] == [bus.atomic]
    await offer(publisher, *(snapshot(number, users("a"), filesystems("b")) for number in range(10)))
    await bus.ensure_stream()
    assert [False] == [bus.atomic]
    await offer(publisher, *(snapshot(number, users("b"), filesystems("b")) for number in range(10)))

    messages = await history(bus)
    assert 30 == len(messages)
    assert not any("Nats-Batch-Id" in message.headers for message in messages)


async def test_too_large_among_others(bus: Bus, publisher: JetStreamPublisher) -> None:
    """A body over the server's limit is dropped; everything else of the same moment is published."""
    huge = users("u" * 2_000_000)
    await offer(publisher, snapshot(0, huge, filesystems("b")), *(snapshot(n, users("a")) for n in range(1, 10)))

    assert sorted(["vm0", *(f"vm{n}" for n in range(1, 10))]) == sorted(m.address.ref.name for m in await history(bus))


@pytest.mark.parametrize("make", [(users, filesystems), (users,)], ids=["batches", "single messages"])
async def test_server_dies_amid_a_burst(
    nats_server: NatsServer,
    bus: Bus,
    publisher: JetStreamPublisher,
    eventually: Eventually,
    make: tuple[Callable[[str], Part], ...],
) -> None:
    """Killed and started again under load: the last value of every guest arrives, and no value arrives twice."""
    for turn in range(3):
        for round_ in range(10):
            for number in range(300):
                publisher.offer(snapshot(number, *(part(f"{turn}-{round_}") for part in make)))
            await asyncio.sleep(0.02)
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)
        await eventually(lambda: bus.connected, within=60)
    await offer(publisher, *(snapshot(number, *(part("end") for part in make)) for number in range(300)))

    values: dict[tuple[str, str], list[bytes]] = {}
    for message in await history(bus):
        values.setdefault((message.address.ref.name, message.address.kind), []).append(message.body)
    assert 300 * len(make) == len(values)
    assert {part("end").body for part in make} == {bodies[-1] for bodies in values.values()}
    assert [] == [bodies for bodies in values.values() if len(set(bodies)) != len(bodies)]
    assert [] == [bodies for bodies in values.values() if bodies != sorted(bodies)]
