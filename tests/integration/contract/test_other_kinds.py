"""
Messages of kinds that a subscriber does not know, or does not want: every reader of the stream goes on behind them.

A newer collector beside older readers is the usual state of an upgrade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from api.cache import Cache
from api.groups import GUESTWIRE, KUBEVIRT
from guestwire import client, codec, subjects
from guestwire.cli.narrate import Narrator
from guestwire.follower import Follower
from guestwire.jetstream import Bus
from guestwire.machine import Load
from guestwire.settings import Publish
from guestwire.snapshot import (
    AgentState,
    Body,
    GuestRef,
    GuestSnapshot,
    Kind,
    ListMeta,
    Part,
    Phase,
    User,
    UserList,
)
from publishers.jetstream import JetStreamPublisher
from status_writer.consumer import Consumer
from status_writer.inbox import Delivery

Eventually = Callable[..., Awaitable[float]]
REF = GuestRef("default", "web")
WEATHER = b'{"sky":"clear"}'


async def say(bus: Bus, kind: str, body: bytes) -> None:
    """Publish as a collector does."""
    part = Part(kind, body, "", codec.now())
    headers = codec.event_headers(
        ref=REF, uid="u", cluster="c", host="h", part=part, message_id=codec.new_trace_id(),
        trace_id=codec.new_trace_id(),
    )  # fmt: skip
    await bus.js.publish(subjects.subject("c", REF, kind), body, headers=headers)


def agent() -> AgentState:
    """Of a guest that runs, with a connected agent."""
    return AgentState(
        "default", "web", "u", "default_web", "u", "h", Phase.RUNNING, channel=True, connected=True, since=codec.now()
    )


STORY: list[tuple[str, Body | bytes]] = [
    ("weather", WEATHER),
    (Kind.LOAD, Load(0.5, 0.25, 0.0)),
    (Kind.AGENT, agent()),
    ("weather", WEATHER),
    (Kind.LOAD, b"not even JSON"),
    (Kind.USERLIST, UserList((User("root"),), ListMeta())),
]


@pytest.fixture
async def story(bus: Bus) -> list[str]:
    """All of it, published; the kinds."""
    await bus.ensure_stream()
    for kind, body in STORY:
        await say(bus, kind, body if isinstance(body, bytes) else codec.encode(body))
    return [str(kind) for kind, _ in STORY]


async def test_client(bus: Bus, story: list[str]) -> None:
    """The client gives every message, whatever its kind, and the words for people do without a kind's meaning."""
    messages = [message async for message in client.follow(bus, after=1, live=False)]
    narrator = Narrator()

    assert story[1:] == [message.address.kind for message in messages]
    told = [narrator.tell(message) for message in messages]
    assert ["load 0.50 0.25 0.00", f"{len(WEATHER)} bytes", "root"] == [told[0], told[2], told[4]]
    assert told[3].startswith("unreadable")


async def test_api(bus: Bus, story: list[str], eventually: Eventually) -> None:
    """The API's cache serves what it knows, and has taken note of the rest."""
    cache = Cache()
    following = asyncio.create_task(Follower(bus, subjects.pattern(cluster="c"), cache).run())
    await eventually(lambda: cache.revision == len(story), within=30)
    following.cancel()

    assert b'{"items":[{"userName":"root"}],"metadata":{}}' == cache.find(KUBEVIRT, REF, Kind.USERLIST).body
    assert b"not even JSON" == cache.find(GUESTWIRE, REF, Kind.LOAD).body


async def test_status_writer(bus: Bus, story: list[str], eventually: Eventually) -> None:
    """The status writer is not even sent what VMI status is not made of."""
    received: list[str] = []

    def take(delivery: Delivery) -> None:
        received.append(delivery.message.address.kind)

    stop = asyncio.Event()
    running = asyncio.create_task(Consumer(bus, "c", "w", take).run(stop))
    await eventually(lambda: received, within=30)
    await say(bus, "weather", WEATHER)
    await say(bus, Kind.INTERFACES, b'{"domain":[]}')
    await eventually(lambda: len(received) > 1, within=30)
    stop.set()
    await asyncio.wait_for(running, 40)

    assert [Kind.AGENT, Kind.INTERFACES] == received


async def test_publisher(bus: Bus, story: list[str], eventually: Eventually) -> None:
    """An older collector that takes over from a newer one recalls all kinds, and publishes its own behind them."""
    publisher = JetStreamPublisher(bus, "c", Publish())
    running = asyncio.create_task(publisher.run())
    recalled = await publisher.recall(REF)
    part = codec.part(Kind.USERLIST, UserList((), ListMeta()), codec.now())
    publisher.offer(GuestSnapshot(REF, "u", "h", (part,), codec.new_trace_id()))
    revisions = await asyncio.wait_for(publisher.settled(REF), 30)
    publisher.close()
    await running

    assert {"weather", "load", "agent", "userlist"} == set(recalled)
    assert len(story) + 1 == revisions["userlist"]
