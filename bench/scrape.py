"""
What a scrape of all guests costs the API: how long it takes, how long it holds up others, what memory it takes.

A cache is filled with guests, each with some filesystems, and its metrics are made as for Prometheus, while another
task of the same event loop does nothing but take its turns. The longest time between two of them is how long anybody
waited.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time

import msgspec
import uvloop

from api.cache import Cache
from api.guest_metrics import GuestMetrics
from bench import api_guests
from guestwire import codec, logs
from guestwire.codec import Event
from guestwire.jetstream import Message
from guestwire.settings import Log
from guestwire.snapshot import Body, Filesystem, FilesystemList, Kind, ListMeta
from guestwire.subjects import Address


class Scrape(msgspec.Struct, frozen=True):
    """One scrape; seconds and bytes."""

    took: float
    size: int
    longest_turn: float


def filled(guests: int, filesystems: int) -> Cache:
    """A cache that has caught up with so many guests."""
    cache, now = Cache(), codec.now()
    cache.begin()

    def say(number: int, kind: str, body: Body) -> None:
        ref = api_guests.guest(number)
        event = Event(id="1", source="/guestwire/local/h", uid=f"uid-{number}", time=now, trace_id="")
        cache.apply(Message(Address("local", ref, kind), cache.revision + 1, event, codec.encode(body), {}))

    mounted = tuple(Filesystem(f"vda{each}", f"/mnt/{each}", "ext4", 10**9, 10**10) for each in range(filesystems))
    for number in range(guests):
        for kind in api_guests.KINDS:
            say(number, kind, api_guests.body(number, kind))
        say(number, Kind.FILESYSTEMLIST, FilesystemList(mounted, ListMeta()))
    cache.complete()
    return cache


async def scrape(metrics: GuestMetrics) -> Scrape:
    """Once, with somebody else on the loop."""
    longest, done = 0.0, False

    async def others() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not done:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    task = asyncio.create_task(others())
    began, size = time.perf_counter(), 0
    async for part in metrics.text():
        size += len(part)
    took = time.perf_counter() - began
    done = True
    await task
    return Scrape(took, size, longest)


def peak() -> int:
    """The most memory that this process had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main() -> None:
    """Fill, scrape, report."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=scrape", description=__doc__)
    parser.add_argument("--guests", type=int, default=10_000)
    parser.add_argument("--filesystems", type=int, default=3, help="of each guest")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logs.configure(Log(level="error"))
    print("  filling the cache", file=sys.stderr, flush=True)
    metrics = GuestMetrics(filled(arguments.guests, arguments.filesystems), "guestwire", 10**7)
    before = peak()
    rounds = [await scrape(metrics) for _ in range(arguments.rounds)]
    figures = {
        "guests": arguments.guests,
        "filesystems": arguments.filesystems,
        "seconds": round(statistics.median(each.took for each in rounds), 2),
        "megabytes": round(rounds[0].size / 1e6, 1),
        "longest_turn_ms": round(1000 * max(each.longest_turn for each in rounds), 1),
        "memory_mb": round((peak() - before) / 1024, 1),
    }
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<18}{value:>10,}")
    print(json.dumps(figures))


if __name__ == "__main__":
    uvloop.run(main())
