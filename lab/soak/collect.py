"""
`python -m lab.soak.collect SOCKET`: the collector and publisher of `guestwire collect`, on simulated hosts.

Put together as `guestwire.cli.collect` does, but for who runs the domains.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from collectors.collector import Collector
from guestwire import lifecycle, logs, settings
from guestwire.health import HealthServer
from guestwire.jetstream import Bus
from guestwire.settings import Settings
from lab.soak.simulated_host import SimulatedHost
from publishers.jetstream import JetStreamPublisher


async def collect(own: Settings, socket: Path, stop: asyncio.Event) -> None:
    """Until `stop`; then what was read is published."""
    bus = Bus(own.nats, "collector of simulated hosts")
    publisher = JetStreamPublisher(bus, own.cluster, own.publish)
    collector = Collector(own, publisher, partial(SimulatedHost, socket=socket))
    publisher.on_fenced = collector.look_again

    def conditions() -> dict[str, bool]:
        return {"connected to NATS": bus.connected, "connected to libvirt": collector.connected}

    async with AsyncExitStack() as resources:
        await resources.enter_async_context(HealthServer(own.collect.health, conditions))
        resources.push_async_callback(bus.close)
        if not await bus.open(stop) or not await bus.ensure_stream_patiently(stop):
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(publisher.run(), name="publisher")
            await collector.run(stop)
            publisher.close()


def main() -> int:
    """Exit status."""
    own = settings.load().settings
    logs.configure(own.log)
    return lifecycle.run(lambda stop: collect(own, Path(sys.argv[1]), stop), grace=own.shutdown_grace)


if __name__ == "__main__":
    sys.exit(main())
