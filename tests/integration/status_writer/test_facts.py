"""Facts as they are read from a real stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from guestwire.errors import NotConnected
from guestwire.jetstream import Bus
from guestwire.lifecycle import cancel
from guestwire.settings import Nats
from guestwire.snapshot import DomainInterface, GuestInterface, GuestRef, Interfaces, IPAddress, Kind
from guestwire.subjects import subject
from lab.nats_server import NatsServer
from status_writer.facts import TOGETHER, FactsReader
from status_writer.status_patch import Facts

from .conftest import Guest, eventually, new_number

VMI: dict[str, Any] = {"metadata": {"uid": "uid"}}


@asynccontextmanager
async def reading(bus: Bus, cluster: str) -> AsyncIterator[FactsReader]:
    """A reader at work."""
    reader = FactsReader(bus, cluster)
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        await cancel(task)


@pytest.fixture
def guest(bus: Bus) -> Guest:
    """A guest of the test's own, in a cluster of its own."""
    number = new_number()
    return Guest(bus, GuestRef("default", f"facts-{number}"), uid="uid", cluster=f"facts-{number}")


def at(*addresses: str) -> Interfaces:
    """A guest's addresses."""
    mac = "52:54:00:00:00:01"
    return Interfaces(
        (DomainInterface("default", mac),), (GuestInterface("eth0", mac, tuple(map(IPAddress, addresses))),)
    )


async def test_nothing_is_known(guest: Guest) -> None:
    """A guest that nobody told of has no facts; that is no error."""
    async with reading(guest.bus, guest.cluster) as reader:
        assert Facts() == await reader.about(guest.ref, VMI)


async def test_facts_of_another_incarnation_are_none(guest: Guest) -> None:
    """What was told of a guest of that name with another uid does not count."""
    await guest.publish(Kind.INTERFACES, at("10.0.0.1"))
    guest.uid = "new"
    await guest.publish(Kind.AGENT, guest.agent())
    async with reading(guest.bus, guest.cluster) as reader:
        facts = await reader.about(guest.ref, VMI)

    assert facts.agent is not None
    assert ("new", None) == (facts.agent.uid, facts.interfaces)


async def test_many_guests_are_read_together(guest: Guest) -> None:
    """More guests at once than fit into a request all get their own facts."""
    many = [
        Guest(guest.bus, GuestRef("default", f"many.{number}"), uid=f"uid{number}", cluster=guest.cluster)
        for number in range(TOGETHER + 50)
    ]
    await asyncio.gather(*(one.publish(Kind.AGENT, one.agent()) for one in many))
    async with reading(guest.bus, guest.cluster) as reader:
        found = await asyncio.gather(*(reader.about(one.ref, VMI) for one in many))

    assert [one.uid for one in many] == [facts.agent.uid if facts.agent else "" for facts in found]


async def test_nonsense_is_unknown(guest: Guest) -> None:
    """A message that does not follow the contract hides nothing but itself."""
    await guest.publish(Kind.AGENT, guest.agent())
    await guest.bus.js.publish(subject(guest.cluster, guest.ref, Kind.INTERFACES), b"{nonsense")
    async with reading(guest.bus, guest.cluster) as reader:
        facts = await reader.about(guest.ref, VMI)

    assert facts.agent is not None
    assert facts.interfaces is None


async def test_what_the_agent_told_before(guest: Guest) -> None:
    """
    Where a pod's address and an old one of the agent's could be confused, the stream's history tells them apart: also
    to a process that has just been started.
    """
    pod = {"infoSource": "domain, guest-agent", "name": "default", "ipAddresses": ["10.0.0.1"]}
    vmi = {**VMI, "status": {"activePods": {"pod": "node"}, "interfaces": [pod]}}
    await guest.publish(Kind.AGENT, guest.agent())
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        await guest.publish(Kind.INTERFACES, at(address, "fe80::1"))
    async with reading(guest.bus, guest.cluster) as reader:
        without_pod = await reader.about(guest.ref, VMI)
        facts = await reader.about(guest.ref, vmi)
        await guest.publish(Kind.INTERFACES, at("10.0.0.4"))
        later = await reader.about(guest.ref, vmi)

    assert frozenset() == without_pod.told
    assert {"10.0.0.1", "10.0.0.2", "10.0.0.3", "fe80::1"} == facts.told
    assert facts.told | {"10.0.0.4"} == later.told


async def test_nats_away(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """While NATS does not answer a read fails within its time, and the next one after its return works."""
    with NatsServer(tmp_path_factory.mktemp("away")) as server:
        async with Bus(Nats(servers=(server.url,), timeout=1), "test") as bus:
            await bus.ensure_stream()
            own = Guest(bus, guest.ref, uid="uid", cluster=guest.cluster)
            await own.publish(Kind.AGENT, own.agent())
            async with reading(bus, own.cluster) as reader:
                server.kill()
                with pytest.raises(NotConnected):
                    await reader.about(own.ref, VMI)
                server.start()
                await eventually(lambda: bus.connected, 60)
                facts = await reader.about(own.ref, VMI)

    assert facts.agent is not None
