"""`guestwire collect`: libvirt -> snapshots -> NATS."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import click

from guestwire.cli.group import run_stage
from guestwire.settings import Settings


@click.command()
def collect() -> None:
    """
    Read the guest agents of the libvirt hosts in `libvirt.uris`, and publish what changed.

    Subscribes to libvirt's events; asks agents right after them, and otherwise within the longest age set for each
    kind of facts (`collect.*`).
    """
    run_stage(main)


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Compose the stages; the input closes first, then what it offered is published."""
    from prometheus_client import REGISTRY  # noqa: PLC0415 - each process needs its own extra only

    from collectors.collector import Collector  # noqa: PLC0415
    from collectors.metrics import Agents  # noqa: PLC0415
    from guestwire.health import HealthServer  # noqa: PLC0415
    from guestwire.jetstream import Bus  # noqa: PLC0415
    from publishers import stream  # noqa: PLC0415
    from publishers.jetstream import JetStreamPublisher  # noqa: PLC0415
    from publishers.ndjson import NdjsonPublisher  # noqa: PLC0415
    from publishers.readings import Readings  # noqa: PLC0415
    from publishers.retention import Retention  # noqa: PLC0415

    bus = Bus(settings.nats, "collector")
    publisher: JetStreamPublisher | NdjsonPublisher
    publisher = to_nats = JetStreamPublisher(bus, settings.cluster, settings.publish)
    if settings.publish.output == "ndjson":
        publisher = NdjsonPublisher(settings.cluster)
    collector = Collector(settings, publisher)
    to_nats.on_fenced = collector.look_again
    REGISTRY.register(Agents(lambda: collector.hosts))

    def conditions() -> dict[str, bool]:
        return {
            "connected to NATS": publisher is not to_nats or bus.connected,
            "connected to libvirt": collector.connected,
        }

    async with AsyncExitStack() as resources:
        await resources.enter_async_context(HealthServer(settings.collect.health, conditions))
        if publisher is to_nats:
            resources.push_async_callback(bus.close)
            if not await bus.open(stop) or not await bus.ensure_stream_patiently(stop):
                return
            name = settings.collect.host or socket.gethostname()
            await Readings(bus, settings.cluster, name, to_nats, collector.read_now).start()
        async with asyncio.TaskGroup() as group:
            group.create_task(publisher.run(), name="publisher")
            if publisher is to_nats:
                group.create_task(stream.keep(bus, stop), name="stream")
            if publisher is to_nats and settings.publish.retention:
                retention = Retention(bus, settings.cluster, lambda: collector.names, settings.publish.retention)
                group.create_task(retention.run(stop), name="retention")
            await collector.run(stop)
            publisher.close()
