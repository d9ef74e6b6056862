"""Guests that are gone leave the stream, and nobody else does."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from guestwire import client, codec
from guestwire.jetstream import Bus, Message
from guestwire.settings import Publish
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, ListMeta, Part, Phase, User, UserList
from publishers.jetstream import JetStreamPublisher
from publishers.retention import Retention

NOW = codec.now()
DAY = timedelta(days=1)


def agent(name: str, phase: Phase, at: datetime) -> Part:
    """An agent record of that time."""
    state = AgentState("ns", name, "uid", name, "u", "h", phase, channel=True, connected=False, since=at)
    return codec.part(Kind.AGENT, state, at)


def users(*names: str, at: datetime = NOW) -> Part:
    """A list of users, read at that time."""
    return codec.part(Kind.USERLIST, UserList(tuple(map(User, names)), ListMeta()), at)


async def publish(bus: Bus, name: str, *parts: Part, host: str = "h") -> None:
    """As a collector of that host would, each part after the other."""
    publisher = JetStreamPublisher(bus, "c", Publish())
    running = asyncio.create_task(publisher.run())
    for part in parts:
        publisher.offer(GuestSnapshot(GuestRef("ns", name), "uid", host, (part,), codec.new_trace_id()))
        await publisher.settled(GuestRef("ns", name))
    publisher.close()
    await running


async def left(bus: Bus) -> list[tuple[str, str]]:
    """Which messages are on the stream, history too."""
    messages: list[Message] = [message async for message in client.follow(bus, after=0, live=False)]
    return [(message.address.ref.name, message.address.kind) for message in messages]


async def test_gone_for_long(bus: Bus) -> None:
    """All kinds and all history of a guest that is gone for long; what is there, went lately or is another host's
    stays.
    """
    running, lately, long_ago = NOW - 9 * DAY, NOW - 6 * DAY, NOW - 8 * DAY
    await publish(bus, "old", users("a"), agent("old", Phase.RUNNING, running), agent("old", Phase.GONE, long_ago))
    await publish(bus, "new", users("a"), agent("new", Phase.GONE, lately))
    await publish(bus, "here", users("a"), agent("here", Phase.RUNNING, running))
    await publish(bus, "theirs", agent("theirs", Phase.GONE, long_ago), host="another")
    retention = Retention(bus, "c", lambda: ["h"], (7 * DAY).total_seconds())

    assert [GuestRef("ns", "old")] == await retention.sweep(NOW.timestamp())
    assert [
        ("new", "userlist"), ("new", "agent"), ("here", "userlist"), ("here", "agent"), ("theirs", "agent")
    ] == await left(bus)  # fmt: skip
    assert [] == await retention.sweep(NOW.timestamp())


async def test_nobody_is_left_to_delete(bus: Bus) -> None:
    """A guest that is gone, and whose host is gone too, leaves the stream by any collector, after twice the time."""
    await publish(bus, "their1", agent("their1", Phase.GONE, NOW - 13 * DAY), host="another")
    await publish(bus, "their2", users("a"), agent("their2", Phase.GONE, NOW - 15 * DAY), host="another")
    await publish(bus, "their3", agent("their3", Phase.RUNNING, NOW - 30 * DAY), host="another")
    retention = Retention(bus, "c", lambda: ["h"], (7 * DAY).total_seconds())

    assert [GuestRef("ns", "their2")] == await retention.sweep(NOW.timestamp())
    assert [("their1", "agent"), ("their3", "agent")] == await left(bus)


async def test_returns_afterwards(bus: Bus) -> None:
    """A guest of the same name that comes later is published whole, and stays."""
    await publish(bus, "vm", users("a", at=NOW - 9 * DAY), agent("vm", Phase.GONE, NOW - 8 * DAY))
    retention = Retention(bus, "c", lambda: ["h"], (7 * DAY).total_seconds())
    await retention.sweep(NOW.timestamp())
    assert [] == await left(bus)
    await publish(bus, "vm", users("a"), agent("vm", Phase.RUNNING, NOW))
    await retention.sweep(NOW.timestamp())

    assert [("vm", "userlist"), ("vm", "agent")] == await left(bus)


async def test_returns_in_the_same_moment(bus: Bus) -> None:
    """What is published between the look at the last word and the deletion is kept."""
    await publish(bus, "vm", users("a"), agent("vm", Phase.GONE, NOW - 8 * DAY))
    [last] = [message async for message in client.follow(bus, kind=Kind.AGENT, live=False)]
    await publish(bus, "vm", agent("vm", Phase.RUNNING, NOW))
    await Retention(bus, "c", lambda: ["h"], 1)._delete(last)

    assert [("vm", "agent")] == await left(bus)


async def test_last_word_of_a_host_that_lost_the_guest(bus: Bus) -> None:
    """Who did not know that another host has told of a guest since does not say its last word; who told last does."""
    ref = GuestRef("ns", "moved")
    await bus.ensure_stream()
    await publish(bus, "moved", agent("moved", Phase.RUNNING, NOW), host="a")
    await publish(bus, "moved", agent("moved", Phase.RUNNING, NOW + DAY), host="b")
    await publish(bus, "moved", agent("moved", Phase.GONE, NOW + 2 * DAY), host="a")
    assert codec.decode((await bus.last("c", ref))[Kind.AGENT].body, AgentState).phase is Phase.RUNNING

    await publish(bus, "moved", agent("moved", Phase.GONE, NOW + 2 * DAY), host="b")
    assert codec.decode((await bus.last("c", ref))[Kind.AGENT].body, AgentState).phase is Phase.GONE
