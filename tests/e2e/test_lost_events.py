"""Events that never arrive: the next resync, or the next connection, finds what they would have told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from collectors.collector import Collector
from collectors.host import Hint, OnHint
from collectors.libvirt_host import LibvirtHost
from guestwire.jetstream import Bus
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd

from .conftest import SELDOM, Bystander, collecting, listening

RESYNC = 3.0
"""Seconds between resyncs."""
LOST = ("agent", {"connected": False, "responsive": None})
CONNECTED = ("agent", {"connected": True})
ANSWERS = ("agent", {"responsive": True})
RUNNING = ("agent", {"phase": "Running"})


@pytest.fixture(scope="module")
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A guest for all tests of this module; each leaves it running, as it found it."""
    with Guest(host, image, namespace="prod", name="web") as machine:
        machine.wait_agent()
        yield machine


class Deaf:
    """Makes hosts whose events can be lost on their way to the collector."""

    def __init__(self) -> None:
        self.listens = True
        self.lost: list[Hint] = []

    def make_host(self, uri: str, connections: int, on_hint: OnHint) -> LibvirtHost:
        """A `collectors.host.MakeHost`."""

        def hint(uuid: str, what: Hint) -> None:
            if self.listens:
                on_hint(uuid, what)
            else:
                self.lost.append(what)

        return LibvirtHost(uri, connections, hint)


def corrections(host: Libvirtd) -> float:
    """As counted until now."""
    return REGISTRY.get_sample_value("guestwire_collector_resync_corrections_total", {"host": host.uri}) or 0


async def test_lost_resume(bus: Bus, host: Libvirtd, guest: Guest) -> None:
    """A guest that runs on unheard of: found by the resync, told once, counted once."""
    deaf = Deaf()
    async with (
        listening(bus, guest) as bystander,
        collecting(bus, host.uri, deaf.make_host, resync=RESYNC, **SELDOM),
    ):
        await bystander.settled(lambda: "filesystemlist" in bystander.latest)
        bystander.mark()
        await asyncio.to_thread(guest.suspend)
        await bystander.until(lambda: bystander.agent("phase") == "Paused")
        before, deaf.listens = corrections(host), False
        await asyncio.to_thread(guest.resume)
        await bystander.settled(lambda: bystander.agent("phase") == "Running")

        bystander.assert_told(("agent", {"phase": "Paused"}), RUNNING)
        assert deaf.lost
        assert 1 == corrections(host) - before


async def test_lost_agent(bus: Bus, host: Libvirtd, guest: Guest) -> None:
    """An agent that goes and one that comes, both unheard of: two corrections, and its facts are read again."""
    deaf = Deaf()
    async with (
        listening(bus, guest) as bystander,
        collecting(bus, host.uri, deaf.make_host, resync=RESYNC, **SELDOM),
    ):
        await bystander.settled(lambda: "filesystemlist" in bystander.latest)
        bystander.mark()
        before, deaf.listens = corrections(host), False
        await asyncio.to_thread(guest.control, "agent", "stop")
        await bystander.until(lambda: not bystander.agent("connected"))
        await asyncio.to_thread(guest.control, "hostname", "db-7")
        await asyncio.to_thread(guest.control, "agent", "start")
        await bystander.settled(lambda: "db-7" == bystander.latest["guestosinfo"]["hostname"])
        await asyncio.to_thread(guest.control, "hostname", "web")

        bystander.assert_told(LOST, CONNECTED, ANSWERS, ("guestosinfo", {"hostname": "db-7"}))
        assert {Hint.AGENT} == set(deaf.lost)
        # An agent whose calls fail may be missed before the resync comes; its return is told by nothing else.
        assert 1 <= corrections(host) - before <= 2


async def test_lost_life(bus: Bus, host: Libvirtd, image: GuestImage) -> None:
    """A whole life without an event: definition, start, end, the domain gone; each is a correction."""
    other = Guest(host, image, namespace="prod", name="unheard", agent_channel=False, disk=False)
    deaf = Deaf()
    deaf.listens = False
    async with (
        listening(bus, other) as bystander,
        collecting(bus, host.uri, deaf.make_host, resync=RESYNC, **SELDOM) as collector,
    ):
        await bystander.until(lambda: collector.connected)
        await asyncio.sleep(RESYNC)
        before = corrections(host)
        await asyncio.to_thread(other.start)
        await bystander.until(lambda: bystander.agent("phase") == "Running")
        assert 1 == corrections(host) - before

        bystander.mark()
        for end, phase in ((other.destroy, "Stopped"), (other.undefine, "Gone")):
            await asyncio.to_thread(end)
            await bystander.until(lambda phase=phase: phase == bystander.agent("phase"))  # type: ignore[misc]
        await bystander.quiet()

        bystander.assert_told(("agent", {"phase": "Stopped"}), ("agent", {"phase": "Gone"}))
        assert 3 == corrections(host) - before


async def connected(bystander: Bystander, collector: Collector, state: bool) -> None:
    """Until the collector has, or has no, connection to libvirt."""
    await bystander.until(lambda: collector.connected is state)


async def test_daemon_killed(bus: Bus, host: Libvirtd, guest: Guest) -> None:
    """While the daemon is away nothing is said; with the next one only what changed, and events work again."""
    async with listening(bus, guest) as bystander, collecting(bus, host.uri) as collector:
        await bystander.settled(lambda: "filesystemlist" in bystander.latest)
        bystander.mark()
        await asyncio.to_thread(host.kill)
        await connected(bystander, collector, False)
        await asyncio.to_thread(guest.control, "login", "alice")
        await bystander.quiet()
        bystander.assert_told()

        await asyncio.to_thread(host.start)
        await bystander.settled(lambda: "alice" in str(bystander.latest))
        bystander.assert_told(("guestosinfo", {"userList": ["alice"]}), ("userlist", {"items": ["alice"]}))

        bystander.mark()
        await asyncio.to_thread(guest.suspend)
        await bystander.until(lambda: bystander.agent("phase") == "Paused")
        await asyncio.to_thread(guest.resume)
        await bystander.settled(lambda: bystander.agent("phase") == "Running")
        bystander.assert_told(("agent", {"phase": "Paused"}), RUNNING)
        await asyncio.to_thread(guest.control, "logout", "alice")


async def test_daemon_restarts(bus: Bus, host: Libvirtd, guest: Guest) -> None:
    """A restart in which nothing happened is not told at all; an agent that went meanwhile is, once."""
    async with listening(bus, guest) as bystander, collecting(bus, host.uri) as collector:
        await bystander.settled(lambda: "filesystemlist" in bystander.latest)
        bystander.mark()
        lost = collector.hosts[0]._host.lost
        await asyncio.to_thread(host.restart)
        await bystander.until(lost.is_set)
        await connected(bystander, collector, True)
        await bystander.quiet(6)
        bystander.assert_told()

        await asyncio.to_thread(host.kill)
        await connected(bystander, collector, False)
        await asyncio.to_thread(guest.control, "agent", "stop")
        await asyncio.to_thread(host.start)
        await bystander.settled(lambda: not bystander.agent("connected"))
        bystander.assert_told(LOST)
        await asyncio.to_thread(guest.control, "agent", "start")
        await bystander.settled(lambda: bystander.agent("responsive"))
        bystander.assert_told(LOST, CONNECTED, ANSWERS)
