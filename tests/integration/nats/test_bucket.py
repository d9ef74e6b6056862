"""The key-value view on a real server: through nats-py's KeyValue and `nats kv`, values and deletions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from nats.js.errors import KeyNotFoundError, NoStreamResponseError
from nats.js.kv import KeyValue

from guestwire import bucket, codec
from guestwire.jetstream import Bus
from guestwire.settings import Nats, Publish
from guestwire.snapshot import AgentState, Body, GuestRef, GuestSnapshot, Kind, ListMeta, Phase, User, UserList
from lab.nats_cli import NatsCli
from lab.nats_server import NatsServer
from publishers.jetstream import JetStreamPublisher
from publishers.retention import Retention

from .conftest import until

pytestmark = pytest.mark.lab

REF = GuestRef("default", "web.1")
KEY = "c.default.web=2E1"


def viewed(server: NatsServer) -> Nats:
    """Settings that ask for a view."""
    return Nats(servers=(server.url,), bucket="guestwire")


def agent(phase: Phase) -> AgentState:
    """The record of the guest."""
    return AgentState(
        REF.namespace, REF.name, "u", "d", "u", "h", phase, channel=True, connected=True, since=codec.now()
    )


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """With the stream and its view."""
    async with Bus(viewed(nats_server), "test") as connection:
        await connection.ensure_stream()
        yield connection


async def publish(bus: Bus, **bodies: Body) -> dict[str, int]:
    """What one look at the guest found, by kind; the revisions."""
    publisher = JetStreamPublisher(bus, "c", Publish())
    running = asyncio.create_task(publisher.run())
    parts = tuple(codec.part(Kind(kind), body, codec.now()) for kind, body in bodies.items())
    publisher.offer(GuestSnapshot(REF, "u", "h", parts, codec.new_trace_id()))
    revisions = await asyncio.wait_for(publisher.settled(REF), 30)
    publisher.close()
    await running
    return revisions


async def value(view: KeyValue, kind: str) -> bytes | None:
    """Of the guest; None where there is none."""
    try:
        return (await view.get(f"{KEY}.{kind}")).value
    except KeyNotFoundError:
        return None


USERS = UserList((User("alice"),), ListMeta())


async def test_values(bus: Bus, cli: NatsCli) -> None:
    """Each key has the last message's body, in plain JSON, whether it came alone or in a batch."""
    await publish(bus, agent=agent(Phase.RUNNING), userlist=UserList((), ListMeta()))
    await publish(bus, userlist=USERS)
    view = await bus.js.key_value("guestwire")

    async def there() -> bool:
        return await value(view, "userlist") == codec.encode(USERS)

    await until(there)
    assert {f"{KEY}.agent", f"{KEY}.userlist"} == set(await view.keys())
    shown = await asyncio.to_thread(cli, "kv", "get", "guestwire", f"{KEY}.userlist", "--raw")
    assert {"items": [{"userName": "alice"}], "metadata": {}} == json.loads(shown)
    listed = await asyncio.to_thread(cli, "kv", "ls", "guestwire")
    assert {f"{KEY}.agent", f"{KEY}.userlist"} == set(listed.split())


async def test_nobody_puts(bus: Bus) -> None:
    """The view takes nothing but what is on the stream."""
    view = await bus.js.key_value("guestwire")

    with pytest.raises(NoStreamResponseError):
        await view.put(f"{KEY}.userlist", b"{}")


async def test_direct_gets_are_the_streams(bus: Bus) -> None:
    """The server asks the stream itself for last messages, and not the view, which has other subjects."""
    await publish(bus, userlist=USERS)
    view = await bus.js.key_value("guestwire")

    async def there() -> bool:
        return await value(view, "userlist") is not None

    await until(there)
    assert [{"userlist"}] * 50 == [set(await bus.last("c", REF)) for _ in range(50)]


async def test_guest_deleted(bus: Bus, cli: NatsCli) -> None:
    """With the guest's messages its keys go."""
    await publish(bus, agent=agent(Phase.RUNNING), userlist=USERS)
    await publish(bus, agent=agent(Phase.GONE))
    view = await bus.js.key_value("guestwire")

    async def gone() -> bool:
        return b'"phase":"Gone"' in (await value(view, "agent") or b"")

    await until(gone)
    assert [REF] == await Retention(bus, "c", lambda: ["h"], 1).sweep(codec.now().timestamp() + 10)
    assert (None, None) == (await value(view, "agent"), await value(view, "userlist"))
    shown = await asyncio.to_thread(cli.run, "kv", "get", "guestwire", f"{KEY}.userlist", "--raw")
    assert (1, True) == (shown.returncode, "key not found" in shown.stdout + shown.stderr)


async def test_guest_that_returns_while_it_is_deleted(bus: Bus) -> None:
    """What is published after the last word that was seen stays."""
    await publish(bus, agent=agent(Phase.GONE))
    [last] = (await bus.last("c", REF)).values()
    await publish(bus, agent=agent(Phase.RUNNING))
    await bus.delete("c", REF, last.revision)
    view = await bus.js.key_value("guestwire")

    async def back() -> bool:
        return b'"phase":"Running"' in (await value(view, "agent") or b"")

    await until(back)
    assert 1 == (await bus.js.stream_info("GUESTWIRE")).state.messages


async def test_stream_made_anew(bus: Bus) -> None:
    """A view of a stream that was deleted is made anew with it; else it would wait for old revisions for ever."""
    await publish(bus, userlist=USERS)
    await bus.js.delete_stream("GUESTWIRE")
    await bus.ensure_stream()
    await publish(bus, agent=agent(Phase.RUNNING))
    view = await bus.js.key_value("guestwire")

    async def there() -> bool:
        return await value(view, "agent") is not None

    await until(there)
    assert [f"{KEY}.agent"] == await view.keys()


async def test_comes_later(nats_server: NatsServer) -> None:
    """A stream that has none gets its view, with everything in it, at the next start of a collector."""
    async with Bus(Nats(servers=(nats_server.url,)), "without") as bus:
        await bus.ensure_stream()
        await publish(bus, userlist=USERS)
        assert 1 == nats_server.monitor("jsz")["streams"]
    async with Bus(viewed(nats_server), "with") as bus:
        await bus.ensure_stream()
        await bus.ensure_stream()
        view = await bus.js.key_value("guestwire")

        async def there() -> bool:
            return await value(view, "userlist") is not None

        await until(there)
        assert 2 == nats_server.monitor("jsz")["streams"]


async def test_bucket_of_somebody_else(nats_server: NatsServer) -> None:
    """A bucket of that name is left alone, and does not keep the collector from its work."""
    async with Bus(viewed(nats_server), "test") as bus:
        await bus.js.create_key_value(bucket="guestwire")
        await bus.ensure_stream()
        assert {"userlist": 1} == await publish(bus, userlist=USERS)

        assert ["$KV.guestwire.>"] == (await bus.js.stream_info(bucket.stream("guestwire"))).config.subjects
