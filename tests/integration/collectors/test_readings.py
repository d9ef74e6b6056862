"""Readings on demand: a NATS request, a real agent, and the new revision."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import msgspec
import pytest

from collectors.collector import Collector
from guestwire import client, subjects
from guestwire.errors import AgentUnresponsive, NotConnected
from guestwire.jetstream import Bus
from guestwire.settings import Collect, Libvirt, Publish, Settings
from guestwire.snapshot import GuestRef
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from publishers.jetstream import JetStreamPublisher
from publishers.readings import Readings

REF = GuestRef("prod", "web.1")
Eventually = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A guest for all tests of this module."""
    with Guest(host, image, namespace="prod", name="web.1") as machine:
        machine.wait_agent()
        yield machine


@pytest.fixture
async def publisher(
    host: Libvirtd, guest: Guest, bus: Bus, eventually: Eventually
) -> AsyncIterator[JetStreamPublisher]:
    """A collector that asks by itself only once an hour, and its service."""
    ages = {"users": 3600.0, "interfaces": 3600.0, "system": 3600.0, "filesystems": 3600.0}
    settings = Settings(
        libvirt=Libvirt(uris=(host.uri,)), collect=msgspec.convert({**ages, "command_timeout": 1}, Collect)
    )
    one = JetStreamPublisher(bus, "c", Publish())
    collector = Collector(settings, one)
    await Readings(bus, "c", "h", one, collector.read_now).start()
    stop = asyncio.Event()
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(collector.run(stop))]
    await eventually(lambda: "filesystemlist" in one.revisions(REF))
    await asyncio.sleep(35)  # the burst after connecting is over
    yield one
    stop.set()
    await tasks[1]
    one.close()
    await tasks[0]


async def test_on_demand(publisher: JetStreamPublisher, bus: Bus, guest: Guest) -> None:
    """A change that nobody would have read for an hour is answered within a second, with its revision."""
    before = await client.read_now(bus, REF, cluster="c", kind="userlist")
    await asyncio.sleep(1.1)
    await asyncio.to_thread(guest.control, "login", "alice")
    began = time.monotonic()
    after = await client.read_now(bus, REF, cluster="c", kind="userlist")
    took = time.monotonic() - began
    stored = await bus.last("c", REF)

    assert took < 1
    assert after["userlist"] > before["userlist"]
    assert after["userlist"] == stored["userlist"].revision
    assert b"alice" in stored["userlist"].body

    again = await asyncio.gather(*(client.read_now(bus, REF, cluster="c") for _ in range(20)))
    assert all(revisions["userlist"] == after["userlist"] for revisions in again)

    await asyncio.sleep(1.1)
    await asyncio.to_thread(guest.control, "agent", "hang")
    with pytest.raises(AgentUnresponsive):
        await client.read_now(bus, REF, cluster="c", timeout=20)
    await asyncio.to_thread(guest.control, "agent", "wake")
    assert "guestosinfo" in await client.read_now(bus, REF, cluster="c", timeout=20)

    with pytest.raises(AgentUnresponsive, match="no kind 'nothing'"):
        await client.read_now(bus, REF, cluster="c", kind="nothing")
    with pytest.raises(NotConnected):
        await client.read_now(bus, GuestRef("prod", "nobody"), cluster="c", timeout=1)
    info = await bus.client.request("$SRV.INFO.guestwire-collector", timeout=2)
    assert subjects.request("c", None, None) == msgspec.json.decode(info.data)["endpoints"][0]["subject"]
