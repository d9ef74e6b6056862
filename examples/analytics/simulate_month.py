"""
A month of a fleet, published as collectors would have, and exported as it goes.

    python -m examples.analytics.simulate_month --to duckdb guests.duckdb --guests 1000

Starts a NATS server of its own unless `--server` names one. The stream keeps 64 messages per subject, as always, so it
never holds the month: after each simulated day an export takes what came. That is how an export is meant to be used,
each run well within what the stream keeps. The last run's table is the whole month.

Simulated are the guests and the time. The publisher, the stream and the export are the real ones. Guests are looked at
every hour and agents' heartbeats come every six; real ones are looked at every two minutes, heartbeats come every five.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from examples.analytics.fleet import MONTH, SimulatedGuest
from guestwire import codec, logs
from guestwire.export.duckdb_store import DuckDBStore
from guestwire.export.exporter import Exporter, Store
from guestwire.export.parquet_store import ParquetStore
from guestwire.jetstream import Bus
from guestwire.lifecycle import cancel
from guestwire.settings import Log, Nats, Publish
from lab.nats_server import NatsServer
from publishers.jetstream import JetStreamPublisher

HEARTBEAT = timedelta(hours=6)


async def simulate(
    bus: Bus,
    fleet: list[SimulatedGuest],
    end: datetime,
    step: timedelta,
    after_day: Callable[[datetime], Awaitable[None]],
) -> None:
    """Publish what a fleet says in the month up to `end`, one look at each guest per `step`."""
    publisher = JetStreamPublisher(bus, "sim", Publish(heartbeat=HEARTBEAT.total_seconds()))
    running = asyncio.create_task(publisher.run())
    try:
        at = end - MONTH
        while at < end:
            tomorrow = at + timedelta(days=1)
            while at < min(tomorrow, end):
                at += step
                await _look(publisher, fleet, at)
            await after_day(at)
        publisher.close()
        await running
    finally:
        await cancel(running)


async def _look(publisher: JetStreamPublisher, fleet: list[SimulatedGuest], at: datetime) -> None:
    known = [guest for guest in fleet if guest.exists(at)]
    for guest in known:
        publisher.offer(guest.snapshot(at))
    for guest in known:
        await publisher.settled(guest.ref)


@contextlib.asynccontextmanager
async def connection(server: str | None) -> AsyncIterator[Bus]:
    """To that server, or to one of our own that ends with us."""
    with _server(server) as url:
        async with Bus(Nats(servers=(url,)), "simulation") as bus:
            await bus.ensure_stream()
            yield bus


@contextlib.contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory, "nats")) as server:
        yield server.url


async def main(arguments: argparse.Namespace) -> None:
    """The month, and what it took."""
    logs.configure(Log(level="warning"))
    end = codec.now().replace(minute=0, second=0, microsecond=0)
    fleet = [SimulatedGuest(number, end) for number in range(arguments.guests)]
    store: Store = (DuckDBStore if arguments.to == "duckdb" else ParquetStore)(arguments.path)
    began, spent, messages = time.monotonic(), 0.0, 0
    async with connection(arguments.server) as bus:

        async def export(at: datetime) -> None:
            nonlocal spent, messages
            start = time.monotonic()
            exporter = Exporter(bus, store)
            await exporter.run(asyncio.Event())
            spent += time.monotonic() - start
            messages += exporter.progress.messages
            missed = f", {exporter.progress.missed:,} MISSED" if exporter.progress.missed else ""
            print(f"{at:%Y-%m-%d %H:%M}  {messages:>10,} messages exported{missed}", file=sys.stderr)

        await simulate(bus, fleet, end, timedelta(hours=arguments.step), export)
    total = time.monotonic() - began
    print(
        f"{arguments.guests:,} guests, {messages:,} messages: {total:.0f} s, of which {spent:.0f} s to export "
        f"({messages / spent:,.0f} messages a second)"
    )


def parse() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="A month of a simulated fleet, exported as it goes.")
    parser.add_argument("path", type=Path, help="of the export")
    parser.add_argument("--to", choices=("duckdb", "parquet"), required=True)
    parser.add_argument("--guests", type=int, default=1000)
    parser.add_argument("--step", type=float, default=1.0, metavar="HOURS", help="between two looks at a guest")
    parser.add_argument("--server", metavar="URL", help="a NATS server that is there (default: one of our own)")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse()))
