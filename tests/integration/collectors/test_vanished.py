"""
Guests that vanish while a collector starts, after it has listed them and before it has looked at them; and what is left
on the stream of one that vanished, when it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from collectors.collector import Collector
from collectors.host import MakeHost, OnHint
from collectors.libvirt_host import LibvirtHost
from guestwire import codec
from guestwire.jetstream import Bus
from guestwire.settings import Collect, Libvirt, Publish, Settings
from guestwire.snapshot import AgentState, GuestRef, Phase
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from publishers.jetstream import JetStreamPublisher

pytestmark = pytest.mark.lab

REF = GuestRef("prod", "brief")


@asynccontextmanager
async def collecting(bus: Bus, host: Libvirtd, make_host: MakeHost = LibvirtHost) -> AsyncIterator[None]:
    """A collector with its publisher; the resync comes when the test is over."""
    settings = Settings(libvirt=Libvirt(uris=(host.uri,), retry_max=0.5), collect=Collect(resync=600))
    publisher = JetStreamPublisher(bus, "c", Publish())
    collector, stop = Collector(settings, publisher, make_host), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(publisher.run())
        collecting = group.create_task(collector.run(stop))
        try:
            yield
        finally:
            stop.set()
            await collecting
            publisher.close()


async def until(bus: Bus, kind: str, holds: Callable[[Any], bool], within: float = 20) -> None:
    """Return when it holds of the guest's last message of a kind."""
    async with asyncio.timeout(within):
        while True:
            message = (await bus.last("c", REF)).get(kind)
            if message and holds(msgspec.json.decode(message.body)):
                return
            await asyncio.sleep(0.05)


async def phase(bus: Bus, expected: Phase) -> None:
    """Return when the stream says that the guest is in a phase."""
    await until(bus, "agent", lambda body: bool(body["phase"] == expected))


def after_the_first_listing(happens: Callable[[], None]) -> tuple[MakeHost, asyncio.Event]:
    """
    Real hosts, to which something happens between their first listing and the first look at a domain; and what is set
    once it has happened, however slow the machine.
    """
    happened = asyncio.Event()

    class Host(LibvirtHost):
        listed = False

        async def list(self) -> list[str]:
            uuids = await super().list()
            if not self.listed:
                self.listed = True
                await asyncio.to_thread(happens)
                happened.set()
            return uuids

    def make(uri: str, connections: int, on_hint: OnHint) -> LibvirtHost:
        return Host(uri, connections, on_hint)

    return make, happened


@pytest.mark.parametrize("lost", [False, True])
async def test_vanishes_unmet(bus: Bus, host: Libvirtd, image: GuestImage, lost: bool) -> None:
    """It was published by the collector before, so its last word comes; also when the host is lost at once."""
    guest = Guest(host, image, namespace=REF.namespace, name=REF.name, agent_channel=False, disk=False)

    def vanish() -> None:
        guest.stop()
        if lost:
            host.kill()

    with guest:
        async with collecting(bus, host):
            await phase(bus, Phase.RUNNING)
        make_host, vanished = after_the_first_listing(vanish)
        async with collecting(bus, host, make_host):
            await vanished.wait()
            if lost:
                await asyncio.sleep(2)  # it is the collector's turn to find that out
                await asyncio.to_thread(host.start)
            await phase(bus, Phase.GONE)


async def test_vanishes_while_away(bus: Bus, host: Libvirtd, image: GuestImage) -> None:
    """The host is lost before the first look, and the guest goes before it is back."""
    guest = Guest(
        host, image, namespace=REF.namespace, name=REF.name, agent_channel=False, disk=False, persistent=False
    )
    with guest:
        async with collecting(bus, host):
            await phase(bus, Phase.RUNNING)
        make_host, lost = after_the_first_listing(host.kill)
        async with collecting(bus, host, make_host):
            await lost.wait()
            await asyncio.to_thread(guest.kill)
            await asyncio.sleep(2)  # it is the collector's turn to find that out
            await asyncio.to_thread(host.start)
            await phase(bus, Phase.GONE)


async def test_returns_unread(bus: Bus, host: Libvirtd, image: GuestImage) -> None:
    """
    A guest returns and its agent cannot be asked yet: nothing that was known before it was gone is the last word of its
    kind any more. So a reader that starts now knows what one knows that has heard all of it.
    """
    guest = Guest(host, image, namespace=REF.namespace, name=REF.name, disk=False)
    async with collecting(bus, host):
        with guest:
            await asyncio.to_thread(guest.wait_agent)
            await asyncio.to_thread(guest.control, "login", "alice")
            await until(bus, "userlist", lambda body: "alice" in str(body))
        await phase(bus, Phase.GONE)
        gone = (await bus.last("c", REF))["agent"].revision
        with guest:
            await phase(bus, Phase.RUNNING)
            await asyncio.sleep(0.5)
            last = await bus.last("c", REF)

    assert {"agent", "interfaces", "guestosinfo", "userlist", "filesystemlist"} == set(last)
    assert [] == [kind for kind, message in last.items() if message.revision < gone]
    assert not msgspec.json.decode(last["userlist"].body)["items"]
    assert not codec.decode(last["agent"].body, AgentState).connected
