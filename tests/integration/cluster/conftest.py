"""A cluster of three servers, three copies of the stream, and the load that trouble meets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import nats.errors
import nats.js.errors
import pytest

from guestwire.jetstream import Bus, stream_config
from guestwire.settings import Nats
from lab.nats_cluster import FragileCluster, Member
from tests.conftest import part

pytest.register_assert_rewrite("tests.integration.cluster.load")

T = TypeVar("T")

NO_SUITABLE_PEERS = 10005
"""JetStream's error code for copies that it does not know where to put (JSClusterNoPeersErrF)."""


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
        await patiently(bus.js.add_stream, stream_config(wanted).evolve(max_msgs_per_subject=-1))
        await bus.ensure_stream_patiently(asyncio.Event())
        yield bus
        await patiently(bus.js.delete_stream, wanted.stream)


async def patiently(ask: Callable[[T], Awaitable[object]], what: T, within: float = 60) -> None:
    """
    Ask servers for what is the same when asked for twice, until they do it: they may be at an election, or, healthy by
    their own word, not know of each other yet.
    """
    async with asyncio.timeout(within):
        while True:
            try:
                await ask(what)
            except (nats.errors.TimeoutError, nats.js.errors.ServiceUnavailableError):
                pass
            except nats.js.errors.NotFoundError:  # deleted, though the answer was lost
                return
            except nats.js.errors.BadRequestError as error:
                if error.err_code != NO_SUITABLE_PEERS:
                    raise
            else:
                return
            await asyncio.sleep(0.1)


async def leader(cluster: FragileCluster, bus: Bus) -> Member:
    """The member that leads the stream."""
    info = await bus.js.stream_info(bus.settings.stream)
    return cluster.member(info.cluster.leader if info.cluster else None)
