"""Disks that are slow, and disks that are full."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.js.api import DiscardPolicy
from prometheus_client import REGISTRY

from guestwire.jetstream import Bus, stream_config
from lab.errors import LabError
from lab.nats_cluster import FragileCluster, Member
from tests.conftest import Eventually, part

from .conftest import leader, patiently, settings
from .load import Load

pytestmark = pytest.mark.lab

SLOW = 0.2
"""Seconds for a write."""
SMALL = 8 * 1024 * 1024
"""Bytes of a disk."""
ROOM = 256 * 1024
"""Bytes of a stream: enough for a second or two."""


@pytest.fixture
def small(directory: Path) -> Iterator[FragileCluster]:
    """Three members, each with a small disk of its own."""
    servers = FragileCluster(directory / "small", disk=SMALL)
    with part("NATS cluster with disks of its own"):
        servers.start()
    yield servers
    servers.stop()


async def test_slow(cluster: FragileCluster, stream: Bus) -> None:
    """Where the leader takes long for every write, it takes long; nothing is lost or comes twice."""
    slow = await leader(cluster, stream)
    async with Load.on(settings(cluster), settings(cluster)) as load:
        await load.progress()
        with part("strace"), slow.slow_disk(SLOW):
            await load.progress()
        await load.progress()
        await load.settle()
        await load.check(stream)


async def test_full(small: FragileCluster, eventually: Eventually, caplog: pytest.LogCaptureFixture) -> None:
    """
    Two members go on without the one whose disk is full. When all are full the publisher keeps what it has, says so,
    and goes on once there is room: a member whose disk was full has to be started again.
    """
    wanted = settings(small)
    async with Bus(wanted, "test") as bus:
        await patiently(bus.js.add_stream, stream_config(wanted).evolve(max_msgs_per_subject=-1))
        async with Load.on(wanted, wanted) as load:
            await load.progress()
            fill(small, (await leader(small, bus)).name)
            await load.progress()
            fill(small, *(member.name for member in small.members))
            await eventually(lambda: not any(map(enabled, small.members)), 60, "all are full")
            await eventually(lambda: "cannot publish" in caplog.text, 60, "the publisher says so")
            await eventually(lambda: pending() == len(load.offered), 60, "every guest has something to publish")
            for member in small.members:
                assert member.disk
                member.disk.empty()
                member.kill()
            await asyncio.to_thread(small.start)
            await load.progress()
            await load.settle()
            await load.check(bus)


async def test_operators_limit(
    cluster: FragileCluster, stream: Bus, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """
    An operator's stream that refuses what is new at its limit: the publisher keeps what it has, says so, and goes on by
    itself once the operator gives more room.
    """
    unlimited = stream_config(stream.settings).evolve(max_msgs_per_subject=-1)
    await stream.js.update_stream(unlimited.evolve(max_bytes=ROOM, discard=DiscardPolicy.NEW))
    async with Load.on(settings(cluster), settings(cluster)) as load:
        await eventually(lambda: "maximum bytes exceeded" in caplog.text, 60, "the publisher says so")
        await eventually(lambda: pending() == len(load.offered), 60, "every guest has something to publish")
        await stream.js.update_stream(unlimited)
        await load.progress()
        await load.settle()
        await load.check(stream)


def fill(cluster: FragileCluster, *names: str) -> None:
    """Leave no room on the disks of some members."""
    for name in names:
        disk = cluster.member(name).disk
        assert disk
        disk.fill()


def enabled(member: Member) -> bool:
    """What the liveness probe of deploy/kubernetes asks."""
    try:
        return bool(member.monitor("healthz?js-enabled-only=true")["status"] == "ok")
    except LabError:
        return False


def pending() -> float | None:
    """What the publisher's metric says of guests with something to publish."""
    return REGISTRY.get_sample_value("guestwire_publisher_pending_guests")
