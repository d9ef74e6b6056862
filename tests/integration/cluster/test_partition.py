"""A member is parted from the two others while its clients still reach it, and frozen while its connections stay."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from urllib.parse import urlsplit

import nats.errors
import pytest

from guestwire.jetstream import Bus
from guestwire.wire import Content
from lab.nats_cluster import FragileCluster, Member

from .conftest import leader, settings
from .load import Load, until

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("which", ["the leader", "another"])
async def test_publisher_on_the_lonely_side(cluster: FragileCluster, stream: Bus, which: str) -> None:
    """
    The publisher is connected to the member that is alone, the stream's leader or not: nothing is acknowledged that the
    two others do not take, so it goes to one of them, and goes on before they are one again.
    """
    leads = await leader(cluster, stream)
    lonely, other = (leads, *(one for one in cluster.members if one is not leads))[:2]
    if which == "another":
        lonely, other = other, lonely
    async with Load.on(settings(cluster, lonely), settings(cluster, other)) as load:
        await load.progress()
        cluster.part(lonely)
        try:
            async with Bus(settings(cluster, other), "test") as majority:
                await elected(majority, other_than=lonely)
            await load.progress(within=90)
            server = load.bus.client.connected_url
            assert server
            assert urlsplit(lonely.url).netloc != server.netloc
        finally:
            cluster.heal()
        await load.progress()
        await load.settle()
        await load.check(stream)


@pytest.mark.parametrize("which", ["the leader", "another"])
async def test_readers_on_the_lonely_side(cluster: FragileCluster, stream: Bus, which: str) -> None:
    """
    Publishing goes on with the two others; readers of the one that is alone notice that it has no news, go to another
    one, and miss nothing.
    """
    leads = await leader(cluster, stream)
    lonely, other = (leads, *(one for one in cluster.members if one is not leads))[:2]
    if which == "another":
        lonely, other = other, lonely
    async with Load.on(settings(cluster, other), settings(cluster, lonely)) as load:
        await load.progress()
        cluster.part(lonely)
        try:
            await load.progress()
            told = load.cache.revision
            await until(lambda: load.cache.revision > told + 100, 120, "the readers have news")
        finally:
            cluster.heal()
        await load.settle()
        await load.check(stream)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see the end of it
async def test_leader_frozen(cluster: FragileCluster, stream: Bus) -> None:
    """
    The leader stands still for a while, with all its connections, and with more on its way than buffers hold: its
    clients notice, and go to another one.
    """
    lonely = await leader(cluster, stream)
    async with Load.on(settings(cluster, lonely), settings(cluster, lonely)) as load:
        await load.progress()
        lonely.freeze()
        try:
            ballast = [Content("ballast", "", b"x" * 500_000)] * 20
            for client in (load.bus.client, load.readers.client):
                await client.request_many(ballast, 1)
            await load.progress()
        finally:
            lonely.thaw()
        await load.settle()
        await load.check(stream)
    gc.collect()  # nats-py forgets to close a connection on which a server says nothing


async def elected(bus: Bus, *, other_than: Member) -> None:
    """Wait until the stream has another leader."""
    async with asyncio.timeout(60):
        name: str | None = other_than.name
        while name in (None, other_than.name):
            with suppress(nats.errors.Error):
                info = await bus.js.stream_info(bus.settings.stream)
                name = info.cluster.leader if info.cluster else None
            await asyncio.sleep(0.1)
