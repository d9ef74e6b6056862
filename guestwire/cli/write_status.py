"""`guestwire write-status`."""

from __future__ import annotations

import asyncio

import click

from guestwire.cli.group import run_stage
from guestwire.health import HealthServer
from guestwire.jetstream import Bus
from guestwire.settings import Settings


@click.command(name="write-status")
def write_status() -> None:
    """
    Patch VMI status from what was published.

    Needs rights to get, list, watch and patch virtualmachineinstances.kubevirt.io in every namespace, and with
    status.events to create events.
    """
    run_stage(main)


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """From the first connection to the last acknowledgement."""
    from status_writer.vmis import Vmis  # noqa: PLC0415
    from status_writer.writer import StatusWriter  # noqa: PLC0415

    bus = Bus(settings.nats, "write-status")
    writer = StatusWriter(bus, settings.cluster, settings.status)
    vmis = Vmis(settings.status, writer.mark, writer.retry_now)

    def conditions() -> dict[str, bool]:
        return {
            "connected to NATS": bus.connected,
            "watching VMIs": vmis.ready,
            "receiving messages": writer.consuming,
            "changing VMIs (patches have no effect)": writer.effective,
        }

    try:
        async with vmis, HealthServer(settings.status.health, conditions), asyncio.TaskGroup() as group:
            watch = group.create_task(vmis.run(), name="watch")
            try:
                streaming = await bus.open(stop) and await bus.ensure_stream_patiently(stop, create=False)
                if streaming and await vmis.wait_synced(stop):
                    await writer.run(vmis, stop)
            finally:
                watch.cancel()
                await bus.close()
    except BaseExceptionGroup as caught:
        raise _first(caught) from None


def _first(group: BaseExceptionGroup) -> BaseException:
    """What went wrong first, for one honest line."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
