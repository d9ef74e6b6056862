"""
What hung agents cost the healthy ones, on real guests behind one libvirt daemon.

A real collector reads all guests every two seconds. Rounds alternate: nobody hangs, then half of the agents do, from
one moment to the next. What counts is how long `ask` takes for the same healthy guests, waiting for a place on a
connection included: the ratio of the medians, round by round. Beside it: connections that were lost, threads, and what
one command costs this process, libvirt's library included (the simulated hosts of BENCH=collector are without it).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from collectors.agent_commands import AgentCommand, Reply
from collectors.host import OnHint
from collectors.host_collector import HostCollector
from collectors.libvirt_host import LibvirtHost
from guestwire import logs
from guestwire.errors import AgentUnresponsive
from guestwire.settings import Collect, Libvirt, Log, Settings
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind
from lab import guest_image
from lab.guest import Guest
from lab.libvirtd import Libvirtd
from lab.paths import cache_dir
from lab.process import OwnedDirectory

PERIOD = 2.0
"""Longest age of every fact, in seconds."""
WARM_UP = 10.0
"""Seconds until the readings after connecting are over."""


class TimedHost(LibvirtHost):
    """A libvirt host that notes how long each answer took."""

    def __init__(self, uri: str, connections: int, on_hint: OnHint) -> None:
        super().__init__(uri, connections, on_hint)
        self.opened = 0
        self.took: list[tuple[str, float]] = []

    async def open(self) -> None:
        """Connect, and count it."""
        self.opened += 1
        await super().open()

    async def ask(self, uuid: str, command: AgentCommand, timeout: int, *, suspect: bool = False) -> Reply:  # noqa: ASYNC109
        """Ask, and note the seconds of what was answered."""
        began = time.monotonic()
        reply = await super().ask(uuid, command, timeout, suspect=suspect)
        self.took.append((uuid, time.monotonic() - began))
        return reply


class Nowhere:
    """Takes snapshots and forgets them."""

    def offer(self, snapshot: GuestSnapshot) -> None:
        """Nothing."""

    def forget(self, ref: GuestRef) -> None:
        """Nothing."""

    async def recall(self, ref: GuestRef) -> dict[str, bytes]:
        """Nothing."""
        return {}

    async def recall_hosts(self, names: Collection[str]) -> list[AgentState]:
        """Nothing."""
        return []


@dataclass
class Results:
    """Seconds per answer of the healthy guests, round by round, and what it took."""

    healthy: list[list[float]] = field(default_factory=list)
    beside_hung: list[list[float]] = field(default_factory=list)
    lost: int = 0
    threads: int = 0
    cpu: float = 0.0
    commands: int = 0


@contextmanager
def guests(count: int) -> Iterator[tuple[Libvirtd, list[Guest]]]:
    """A daemon with so many guests, their agents connected."""
    image = guest_image.build(cache_dir(), lambda _: None)
    with OwnedDirectory() as directory, Libvirtd(directory / "h1") as daemon:
        machines = [Guest(daemon, image, name=f"vm{number}") for number in range(count)]
        for machine in machines:
            machine.start()
        for machine in machines:
            machine.wait_agent(timeout=180)
            say(f"{machine.domain_name} is up")
        yield daemon, machines


async def each(machines: Sequence[Guest], *words: str) -> None:
    """The same in some guests at once."""
    with ThreadPoolExecutor(len(machines)) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, machine.control, *words) for machine in machines))


async def measure(uri: str, machines: Sequence[Guest], rounds: int, seconds: float) -> Results:
    """Collect all the time; let half of the agents hang every other while."""
    ages = dict.fromkeys(("users", "interfaces", "system", "filesystems"), PERIOD)
    settings = Settings(libvirt=Libvirt(uris=(uri,)), collect=msgspec.convert(ages, Collect))
    hosts: list[TimedHost] = []

    def host(uri: str, connections: int, on_hint: OnHint) -> TimedHost:
        hosts.append(TimedHost(uri, connections, on_hint))
        return hosts[0]

    collector, stop, results = HostCollector(uri, settings, Nowhere(), host), asyncio.Event(), Results()
    collecting = asyncio.create_task(collector.run(stop))
    hanging, healthy = machines[::2], {machine.uuid for machine in machines[1::2]}

    async def window() -> list[float]:
        hosts[0].took.clear()
        await asyncio.sleep(seconds)
        results.threads = max(results.threads, threading.active_count())
        return [took for uuid, took in hosts[0].took if uuid in healthy]

    await asyncio.sleep(WARM_UP)
    for number in range(rounds):
        cpu = time.process_time()
        results.healthy.append(await window())
        results.cpu += time.process_time() - cpu
        results.commands += len(hosts[0].took)
        await each(hanging, "agent", "hang")
        results.beside_hung.append(await window())
        await each(hanging, "agent", "wake")
        await asyncio.gather(*(answered(collector, machine) for machine in hanging))
        say(f"round {number + 1} of {rounds}")
    results.lost = hosts[0].opened - 1
    stop.set()
    await collecting
    return results


async def answered(collector: HostCollector, machine: Guest) -> None:
    """Return once an agent that hung answers again."""
    for guest in collector.guests.values():
        while guest.domain.uuid == machine.uuid and guest.responsive is not True:
            try:
                await collector.read_now(guest.domain.ref, [Kind.USERLIST])
            except AgentUnresponsive:
                await asyncio.sleep(1)


def report(count: int, results: Results) -> None:
    """A table for people, a line for programs."""
    ratios = []
    print(f"{'answers of the healthy guests':<32}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}{'answers':>9}")
    for number, (before, beside) in enumerate(zip(results.healthy, results.beside_hung, strict=True), 1):
        for name, took in (("nobody hangs", before), (f"{-(-count // 2)} of {count} hang", beside)):
            cuts = [1000 * cut for cut in statistics.quantiles(took, n=20, method="inclusive")]
            worst = 1000 * max(took)
            print(f"round {number}, {name:<23}{cuts[9]:>9.1f}{cuts[18]:>9.1f}{worst:>9.1f}{len(took):>9}")
        ratios.append(statistics.median(beside) / statistics.median(before))
    each_ms = 1000 * results.cpu / results.commands
    print(f"ratios {', '.join(f'{ratio:.2f}' for ratio in ratios)}; {each_ms:.2f} ms of CPU a command")
    figures = {
        "guests": count,
        "healthy_latency_ratio": round(statistics.median(ratios), 2),
        "healthy_worst_ms": round(1000 * max(map(max, results.beside_hung))),
        "connections_lost": results.lost,
        "threads": results.threads,
        "cpu_ms_per_command": round(each_ms, 2),
    }
    print(json.dumps(figures))


def say(what: str) -> None:
    """Progress, beside the results."""
    print(f"  {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Start guests, measure, report."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=hung", description=__doc__)
    parser.add_argument("--guests", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="of each half of a round")
    arguments = parser.parse_args()
    logs.configure(Log(level="error"))
    with guests(arguments.guests) as (daemon, machines):
        results = asyncio.run(measure(daemon.uri, machines, arguments.rounds, arguments.seconds))
    report(arguments.guests, results)


if __name__ == "__main__":
    main()
