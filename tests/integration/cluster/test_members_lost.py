"""Members of the cluster are killed and started again under load."""

from __future__ import annotations

import asyncio

import pytest

from guestwire.jetstream import Bus
from lab.nats_cluster import FragileCluster

from .conftest import leader, settings
from .load import Load

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("which", ["the leader", "another"])
async def test_one_killed(cluster: FragileCluster, stream: Bus, which: str) -> None:
    """
    The member that all clients are connected to is killed, the stream's leader or not: they go to another one, and go
    on before it is back.
    """
    leads = await leader(cluster, stream)
    victim = leads if which == "the leader" else next(one for one in cluster.members if one is not leads)
    async with Load.on(settings(cluster, victim), settings(cluster, victim)) as load:
        await load.progress()
        await asyncio.to_thread(victim.kill)
        await load.progress()
        await asyncio.to_thread(cluster.start)
        await load.progress()
        await load.settle()
        await load.check(stream)


async def test_all_killed(cluster: FragileCluster, stream: Bus) -> None:
    """All members are killed at once and started again."""
    async with Load.on(settings(cluster), settings(cluster)) as load:
        await load.progress()
        for member in cluster.members:
            member.kill()
        await asyncio.to_thread(cluster.start)
        await load.progress()
        await load.settle()
        await load.check(stream)


async def test_one_after_the_other(cluster: FragileCluster, stream: Bus) -> None:
    """Members are stopped and started in turn, as for an update."""
    async with Load.on(settings(cluster), settings(cluster)) as load:
        for member in cluster.members:
            await load.progress()
            await asyncio.to_thread(member.stop)
            await asyncio.to_thread(cluster.start)
        await load.progress()
        await load.settle()
        await load.check(stream)
