"""A cluster of three servers, three copies of the stream, and the load that trouble meets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from guestwire.jetstream import Bus, stream_config
from guestwire.settings import Nats
from lab.nats_cluster import FragileCluster, Member
from tests.conftest import part

pytest.register_assert_rewrite("tests.integration.cluster.load")


@pytest.fixture(scope="module")
def cluster(directory: Path) -> Iterator[FragileCluster]:
    """Three members, healthy; whoever breaks one mends it."""
    with part("NATS cluster"):
        servers = FragileCluster(directory)
        servers.start()
    yield servers
    servers.stop()


def settings(cluster: FragileCluster, *first: Member) -> Nats:
    """Of a client that connects to one member, and goes to the others when it is lost; else to any."""
    return Nats(servers=tuple(member.url for member in first) or cluster.urls, replicas=3, timeout=2)


@pytest.fixture
async def stream(cluster: FragileCluster) -> AsyncIterator[Bus]:
    """A connection; the stream is new, with three copies and every message kept."""
    wanted = settings(cluster)
    async with Bus(wanted, "test") as bus:
        await bus.js.add_stream(stream_config(wanted).evolve(max_msgs_per_subject=-1))
        await bus.ensure_stream()
        yield bus
        await bus.js.delete_stream(wanted.stream)


async def leader(cluster: FragileCluster, bus: Bus) -> Member:
    """The member that leads the stream."""
    info = await bus.js.stream_info(bus.settings.stream)
    return cluster.member(info.cluster.leader if info.cluster else None)
