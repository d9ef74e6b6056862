"""
Hung agents on real guests: their channels stay connected, and nothing but a time-out tells.

A libvirt daemon stops reading a connection with five calls under way, also its keepalive answers; so five hung agents
would cost a collector its connection after half a minute, if it were not careful.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from bench.hung import Nowhere, TimedHost, each, guests
from collectors.host import OnHint
from collectors.host_collector import HostCollector
from collectors.libvirt_host import LOOKUPS, SUSPECT_CALLS
from guestwire.settings import Collect, Libvirt, Settings
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from tests.conftest import Eventually

pytestmark = pytest.mark.lab

HUNG, HEALTHY = 5, 3
PERIOD = 2.0
"""Longest age of every fact, in seconds."""
KEEPALIVE_RUNS_OUT = 40.0
"""Seconds after which libvirt has given up a connection whose keepalive goes unanswered."""


@pytest.fixture(scope="module")
def fleet(image: GuestImage) -> Iterator[tuple[Libvirtd, list[Guest]]]:
    """Guests of one daemon, more of which will hang than one connection may ask at once."""
    with guests(HUNG + HEALTHY) as daemon_and_machines:
        yield daemon_and_machines


async def test_more_than_half_hang(fleet: tuple[Libvirtd, list[Guest]], eventually: Eventually) -> None:
    """The healthy are read on, no connection is lost, threads stay bounded; the hung are told, and recover."""
    daemon, machines = fleet
    ages = dict.fromkeys(("users", "interfaces", "system", "filesystems"), PERIOD)
    settings = Settings(libvirt=Libvirt(uris=(daemon.uri,)), collect=msgspec.convert(ages, Collect))
    hosts: list[TimedHost] = []

    def host(uri: str, connections: int, on_hint: OnHint) -> TimedHost:
        hosts.append(TimedHost(uri, connections, on_hint))
        return hosts[0]

    threads, stop = threading.active_count(), asyncio.Event()
    collector = HostCollector(daemon.uri, settings, Nowhere(), host)
    collecting = asyncio.create_task(collector.run(stop))
    hanging, healthy = machines[:HUNG], {machine.uuid for machine in machines[HUNG:]}

    def responsive(*wanted: Guest) -> list[bool | None]:
        return [collector.guests[one.uuid].responsive if one.uuid in collector.guests else None for one in wanted]

    await eventually(lambda: all(responsive(*machines)), within=120)
    await each(hanging, "agent", "hang")
    hosts[0].took.clear()
    began = time.monotonic()
    await eventually(lambda: responsive(*hanging) == [False] * HUNG, within=60)
    assert all(collector.guests[one.uuid].reason for one in hanging)
    await asyncio.sleep(max(0, began + KEEPALIVE_RUNS_OUT - time.monotonic()))

    answered = [uuid for uuid, _ in hosts[0].took]
    assert healthy <= set(answered)
    assert min(answered.count(uuid) for uuid in healthy) >= KEEPALIVE_RUNS_OUT / PERIOD
    assert not any(responsive(*hanging))
    assert all(responsive(*machines[HUNG:]))
    calls = settings.libvirt.connections + SUSPECT_CALLS + LOOKUPS
    assert threading.active_count() - threads <= calls + HUNG + HEALTHY

    await each(hanging, "agent", "wake")
    await eventually(lambda: all(responsive(*machines)), within=120)
    assert 1 == hosts[0].opened
    stop.set()
    await collecting
