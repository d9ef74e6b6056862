"""A publisher at work, as a collector has one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from guestwire.jetstream import Bus
from guestwire.settings import Publish
from publishers.jetstream import JetStreamPublisher


@asynccontextmanager
async def publisher(bus: Bus, cluster: str = "local") -> AsyncIterator[JetStreamPublisher]:
    """Until the end of the context, when all that was offered is published."""
    await bus.ensure_stream()
    one = JetStreamPublisher(bus, cluster, Publish())
    running = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        one.close()
        await running
