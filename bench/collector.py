"""
What collecting costs: real collectors and publisher in this process, a real NATS server, simulated hosts and guests.

A host has 50 guests, as real ones hold tens, so that the places of `LibvirtHost` limit what is asked at once. One guest
in a hundred hangs, one in ten changes slowly. All agents connect at the same moment (the storm); after the burst of
readings that follows a connect, the steady state is measured. CPU and memory are those of this whole process, the
simulation included and libvirt's own library left out (`make bench BENCH=hung` measures that). Commands per guest and
hour come from the real `Schedule` run through simulated hours, and are counted in the measured window too.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from bench.simulated_host import SimulatedGuest, SimulatedHost
from collectors.collector import Collector
from collectors.host import OnHint
from collectors.schedule import Schedule, periods
from collectors.threads import Threads
from guestwire import logs
from guestwire.jetstream import Bus
from guestwire.settings import Collect, Libvirt, Log, Nats, Settings
from guestwire.snapshot import Kind
from lab.nats_server import NatsServer
from publishers.jetstream import JetStreamPublisher

GUESTS_PER_HOST = 50
HUNG = 100
LIVELY = 10
"""One guest in so many."""
SETTLING = 240.0
"""Seconds after connecting until all intervals have doubled to the default ages."""


@dataclass
class Window:
    """A stretch of the run: what it used, per second."""

    seconds: float
    cores: float
    commands: int


class Fleet:
    """Simulated hosts, made as the collector asks for them."""

    def __init__(self, guests: int) -> None:
        count = -(-guests // GUESTS_PER_HOST)
        self.guests = [
            SimulatedGuest(f"bench_vm-{number}", connected=False, lively=number % LIVELY == 0)
            for number in range(guests)
        ]
        self.hung = self.guests[HUNG // 2 :: HUNG]
        for guest in self.hung:
            guest.hang()
        self.hosts: dict[str, SimulatedHost] = {}
        self._by_uri = {
            f"simulated:///host-{number}": self.guests[number * GUESTS_PER_HOST :][:GUESTS_PER_HOST]
            for number in range(count)
        }
        self.uris = tuple(self._by_uri)
        self._threads = cache(Threads)

    def host(self, uri: str, connections: int, on_hint: OnHint) -> SimulatedHost:
        """A host of that URI."""
        self.hosts[uri] = SimulatedHost(uri, connections, on_hint, self._by_uri[uri], self._threads())
        return self.hosts[uri]

    @property
    def asked(self) -> int:
        """Commands sent so far."""
        return sum(host.asked for host in self.hosts.values())


def commands_per_hour(profile: str, hours: int = 24) -> float:
    """What the schedule asks of a healthy guest in steady state, over simulated hours."""
    schedule, now, asked = Schedule(periods(msgspec.convert({"profile": profile}, Collect), "default")), 0.0, 0
    schedule.restart(now)
    while now < (hours + 1) * 3600:
        for command in schedule.due(now, frozen=False):
            asked += now >= 3600
            schedule.asked(command, now)
        now += max(schedule.next(now), 0.001)
    return asked / hours


def rss_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def subjects(bus: Bus) -> int:
    """How many subjects the stream holds: each is an acknowledged message."""
    answer = await bus.client.request(f"$JS.API.STREAM.INFO.{bus.settings.stream}", timeout=60)
    return int(json.loads(answer.data)["state"].get("num_subjects", 0))


async def until(bus: Bus, wanted: int, timeout: float) -> float:  # noqa: ASYNC109
    """Seconds until the stream holds that many subjects."""
    began = time.monotonic()
    while (there := await subjects(bus)) < wanted:
        if time.monotonic() - began > timeout:
            raise TimeoutError(f"{there} of {wanted} subjects on the stream after {timeout:g} s")
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def measured(fleet: Fleet, work: Callable[[], Awaitable[object]]) -> Window:
    """Run something, and tell what this process used meanwhile."""
    wall, cpu, asked = time.monotonic(), time.process_time(), fleet.asked
    await work()
    seconds = time.monotonic() - wall
    return Window(seconds, (time.process_time() - cpu) / seconds, fleet.asked - asked)


async def run(guests: int, seconds: float, settling: float, url: str, profile: cProfile.Profile | None) -> None:
    """The storm and the steady state."""
    fleet = Fleet(guests)
    settings = Settings(nats=Nats(servers=(url,)), libvirt=Libvirt(uris=fleet.uris))
    stop = asyncio.Event()
    empty_mb = rss_mb()
    async with Bus(settings.nats, "bench") as bus, asyncio.TaskGroup() as group:
        await bus.ensure_stream()
        publisher = JetStreamPublisher(bus, settings.cluster, settings.publish)
        collector = Collector(settings, publisher, fleet.host)
        publisher.on_fenced = collector.look_again
        group.create_task(publisher.run())
        collecting = group.create_task(collector.run(stop))
        first_sight = await until(bus, 2 * guests, 600)
        healthy = guests - len(fleet.hung)
        wanted = len(Kind) * healthy + 2 * len(fleet.hung)
        began = time.monotonic()
        for guest in fleet.guests:
            guest.connect()
        storm = await measured(fleet, lambda: until(bus, wanted, 600))
        waited = max((guest.first_answer or began) - began for guest in fleet.guests)
        say(f"storm of {storm.seconds:.1f} s, settling for {settling:g} s")
        await asyncio.sleep(settling)
        for guest in fleet.guests:
            guest.longest_gap = 0.0
        if profile:
            profile.enable()
        steady = await measured(fleet, lambda: asyncio.sleep(seconds))
        if profile:
            profile.disable()
        gap = max(guest.longest_gap for guest in fleet.guests)
        report(guests, first_sight, storm, waited, steady, gap, empty_mb)
        stop.set()
        await collecting
        publisher.close()


def report(
    guests: int, first_sight: float, storm: Window, waited: float, steady: Window, gap: float, empty_mb: float
) -> None:
    """A table for people, a line for programs."""
    default, economy = commands_per_hour("default"), commands_per_hour("economy")
    counted = steady.commands / steady.seconds * 3600 / guests
    memory, threads = rss_mb(), threading.active_count()
    each = steady.cores * steady.seconds / steady.commands * 1e6
    rows = {
        "guests": f"{guests:,}",
        "first sight, agents not connected": f"{first_sight:.1f} s",
        "storm: every snapshot acknowledged": f"{storm.seconds:.1f} s, {storm.cores:.2f} cores",
        "storm: longest wait for a first answer": f"{waited:.1f} s",
        "steady: CPU": f"{steady.cores:.3f} cores, {each:.0f} us a command",
        "steady: longest time unasked": f"{gap:.1f} s",
        "memory": f"{memory:.0f} MB, {empty_mb:.0f} MB of it before the first guest; {threads} threads",
        "commands per guest and hour, default": f"{default:.0f}; {counted:.0f} counted in {steady.seconds:.0f} s",
        "commands per guest and hour, economy": f"{economy:.0f}",
    }
    for name, value in rows.items():
        print(f"{name:<42}{value}")
    figures = {
        "guests": guests,
        "cpu_cores": round(steady.cores, 3),
        "rss_mb": round(memory),
        "commands_per_guest_hour": round(default),
        "commands_per_guest_hour_economy": round(economy),
        "storm_seconds": round(storm.seconds, 1),
    }
    print(json.dumps(figures))


def say(what: str) -> None:
    """Progress, beside the results."""
    print(f"  {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Start a NATS server, collect, report."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=collector", description=__doc__)
    parser.add_argument("--guests", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=60, help="of the steady state that are measured")
    parser.add_argument("--settling", type=float, default=SETTLING, help="seconds between the storm and the window")
    parser.add_argument("--profile", action="store_true", help="also print where the event loop's time went")
    arguments = parser.parse_args()
    logs.configure(Log(level="error"))
    profile = cProfile.Profile() if arguments.profile else None
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory, "nats")) as server:
        asyncio.run(run(arguments.guests, arguments.seconds, arguments.settling, server.url, profile))
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
