"""The stream is looked at while collectors run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import nats.js.errors
import pytest
from prometheus_client import REGISTRY

from guestwire import client, codec
from guestwire.jetstream import Bus, stream_config
from guestwire.lifecycle import cancel
from guestwire.settings import Publish
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, ListMeta, Phase, User, UserList
from publishers import stream
from publishers.jetstream import JetStreamPublisher

pytestmark = pytest.mark.lab

Eventually = Callable[..., Awaitable[float]]
VM = GuestRef("ns", "vm")


@pytest.fixture
async def kept(bus: Bus) -> AsyncIterator[Bus]:
    """A stream at which is looked every tenth of a second."""
    await bus.ensure_stream()
    keeping = asyncio.create_task(stream.keep(bus, asyncio.Event(), pace=0.1))
    yield bus
    await cancel(keeping)


def drift() -> float | None:
    """What the metric says."""
    return REGISTRY.get_sample_value("guestwire_publisher_stream_drift")


async def test_operator_changes_it(kept: Bus, eventually: Eventually, caplog: pytest.LogCaptureFixture) -> None:
    """What an operator changes stays so; it is told once in the log, and counted until it is as before."""
    ours = stream_config(kept.settings)
    await kept.js.update_stream(ours.evolve(max_msgs_per_subject=5, max_age=86400.0))
    await eventually(lambda: drift() == 2, within=20)
    await asyncio.sleep(0.5)
    info = await kept.js.stream_info(kept.settings.stream)
    told = [record for record in caplog.records if "operator" in record.getMessage()]

    assert 5 == info.config.max_msgs_per_subject
    assert 1 == len(told)

    await kept.js.update_stream(ours)
    await eventually(lambda: drift() == 0, within=20)


def snapshot(heartbeats: int) -> GuestSnapshot:
    """A guest of which nothing changes."""
    at = codec.now() + heartbeats * timedelta(hours=1)
    agent = AgentState("ns", "vm", "u", "d", "u", "h", Phase.RUNNING, channel=True, connected=True, since=at)
    users = UserList((User("root"),), ListMeta())
    parts = (codec.part(Kind.AGENT, agent, at), codec.part(Kind.USERLIST, users, at))
    return GuestSnapshot(VM, "u", "h", parts, codec.new_trace_id())


async def test_deleted(kept: Bus, eventually: Eventually) -> None:
    """A stream that somebody deleted is made again, and with its next heartbeat a guest is told of as a whole."""
    publisher = JetStreamPublisher(kept, "c", Publish())
    publisher.on_fenced = lambda _: publisher.offer(snapshot(2))
    running = asyncio.create_task(publisher.run())
    publisher.offer(snapshot(0))
    await publisher.settled(VM)
    await kept.js.delete_stream(kept.settings.stream)

    async def back() -> bool:
        try:
            return bool(await kept.js.stream_info(kept.settings.stream))
        except nats.js.errors.NotFoundError:
            return False

    async with asyncio.timeout(20):
        while not await back():  # noqa: ASYNC110 - what changes is behind a socket
            await asyncio.sleep(0.05)
    publisher.offer(snapshot(1))
    await publisher.settled(VM)
    found = {message.address.kind async for message in client.follow(kept, live=False)}
    publisher.close()
    await running

    assert {"agent", "userlist"} == found
