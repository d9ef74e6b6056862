"""Two hosts that tell about the same guests through a cluster, many at once: what each takes for its own word is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from guestwire import client, codec
from guestwire.jetstream import Bus
from guestwire.settings import Publish
from guestwire.snapshot import GuestRef, GuestSnapshot, Kind, ListMeta, User, UserList
from lab.nats_cluster import FragileCluster
from publishers.jetstream import JetStreamPublisher

from .conftest import leader, settings

pytestmark = pytest.mark.lab

REFS = [GuestRef("ns", f"vm{number}") for number in range(100)]
TURNS = 20


class Host:
    """Has its say about all guests in each of its turns; where the other was faster, it has nothing more to say."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.name = name
        self.publisher = JetStreamPublisher(bus, "c", Publish())
        self.said: dict[tuple[GuestRef, int], bytes] = {}
        """Bodies by guest and revision, as the publisher has it."""
        self.fenced = 0

    async def run(self) -> None:
        """All turns; the publisher ends with them."""
        publishing = asyncio.create_task(self.publisher.run())
        for turn in range(TURNS):
            body = UserList((User(f"{self.name}-{turn}"),), ListMeta())
            part = codec.part(Kind.USERLIST, body, datetime.now(UTC))
            fenced: set[GuestRef] = set()
            self.publisher.on_fenced = fenced.add
            for ref in REFS[turn % 3 :]:
                self.publisher.offer(GuestSnapshot(ref, "uid", self.name, (part,), codec.new_trace_id()))
            for ref in REFS[turn % 3 :]:
                revisions = await self.publisher.settled(ref)
                if ref not in fenced:
                    self.said[ref, revisions[Kind.USERLIST]] = part.body
            self.fenced += len(fenced)
        self.publisher.close()
        await publishing


async def test_contested(cluster: FragileCluster, stream: Bus) -> None:
    """Each revision that a publisher has for its own holds what it said, and everything on the stream is somebody's."""
    leads = await leader(cluster, stream)
    other = next(member for member in cluster.members if member is not leads)
    async with Bus(settings(cluster, leads), "one") as near, Bus(settings(cluster, other), "two") as far:
        hosts = Host(near, "near"), Host(far, "far")
        for bus in (near, far):
            await bus.ensure_stream_patiently(asyncio.Event())
        await asyncio.wait_for(asyncio.gather(*(host.run() for host in hosts)), 120)
    held = {
        (message.address.ref, message.revision): (message.event.host, message.body)
        async for message in client.follow(stream, kind=Kind.USERLIST, after=0, live=False)
    }

    wrong = [one for host in hosts for one, body in host.said.items() if held.get(one) != (host.name, body)]
    assert [] == wrong
    assert all(host.said for host in hosts)
    assert sum(host.fenced for host in hosts) > len(REFS)
    assert len(held) == sum(len(host.said) for host in hosts)
