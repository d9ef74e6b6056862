"""
How long the API needs until it can answer: a server that holds many guests is started, and a cache is filled from it.

The stream holds five kinds of facts about each guest, on file storage. Measured are its size on disk, the server's
start on it after a kill and after a proper stop, and, in turns, readers of all that it holds: the API's cache, and a
bare ordered consumer of nats-py that counts messages and does nothing else. Between the two, this project's follower
with a sink that counts, which shows what of the difference is the cache's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path

from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy

from api.cache import Cache
from guestwire import codec, logs, subjects
from guestwire.follower import Follower
from guestwire.jetstream import Bus, Message
from guestwire.settings import Log, Nats
from guestwire.snapshot import (
    AgentState,
    Body,
    Command,
    DomainInterface,
    Filesystem,
    FilesystemDisk,
    FilesystemInfo,
    FilesystemList,
    GuestInterface,
    GuestOSInfo,
    GuestRef,
    Interfaces,
    IPAddress,
    Kind,
    ListMeta,
    OperatingSystem,
    Phase,
    Reading,
    User,
    UserList,
)
from guestwire.wire import Content
from lab.nats_server import NatsServer
from publishers.single import Acknowledgement

CLUSTER = "bench"
KINDS = (Kind.AGENT, Kind.GUESTOSINFO, Kind.USERLIST, Kind.FILESYSTEMLIST, Kind.INTERFACES)
COMMANDS = tuple(f"guest-command-{number}" for number in range(40))


def bodies(ref: GuestRef, now: datetime) -> dict[Kind, Body]:
    """What is known about a Linux guest with three filesystems, a user and one network card."""
    readings = {kind.value: Reading(now) for kind in KINDS if kind is not Kind.AGENT}
    disk = FilesystemDisk("virtio", "0a1b2c3d")
    filesystems = tuple(
        Filesystem(name, mount, "ext4", 3 * 10**9, 10**10, (disk,))
        for name, mount in (("vda1", "/"), ("vda15", "/boot"), ("vdb", "/data"))
    )
    users = (User("debian", login_time=1.7e9),)
    address = f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(256)}"
    mac = "52:54:00:12:34:56"
    return {
        Kind.AGENT: AgentState(
            ref.namespace, ref.name, f"uid-{ref.name}", f"{ref.namespace}_{ref.name}", f"uuid-{ref.name}", "node-1",
            Phase.RUNNING, channel=True, connected=True, since=now, responsive=True, frozen=False, version="10.0",
            commands=COMMANDS, readings=readings,
        ),
        Kind.GUESTOSINFO: GuestOSInfo(
            FilesystemInfo(filesystems),
            OperatingSystem(
                "debian", "6.12.0-amd64", "#1 SMP Debian 6.12", "x86_64", "Debian GNU/Linux",
                "Debian GNU/Linux 13 (trixie)", "13 (trixie)", "13",
            ),
            "UTC, 0", guest_agent_version="10.0", hostname=ref.name,
            supported_commands=tuple(Command(name, True) for name in COMMANDS), user_list=users,
        ),
        Kind.USERLIST: UserList(users, ListMeta()),
        Kind.FILESYSTEMLIST: FilesystemList(filesystems, ListMeta()),
        Kind.INTERFACES: Interfaces(
            (DomainInterface("default", mac, 1, "up"),),
            (GuestInterface("eth0", mac, (IPAddress(address, 24), IPAddress("fe80::5054:ff:fe12:3456", 64))),),
        ),
    }  # fmt: skip


def contents(guests: int) -> Iterator[list[Content]]:
    """Messages as collectors publish them, in rounds."""
    for first in range(0, guests, 200):
        some: list[Content] = []
        for number in range(first, min(first + 200, guests)):
            ref, now, trace_id = GuestRef(f"team-{number % 100}", f"vm-{number}"), codec.now(), codec.new_trace_id()
            for kind, body in bodies(ref, now).items():
                lines = codec.event_lines(
                    ref=ref, uid=f"uid-{ref.name}", cluster=CLUSTER, host="node-1", kind=kind,
                    time=codec.timestamp(now), message_id=f"{random.getrandbits(128):032x}",
                    trace=codec.traceparent(trace_id, "00f067aa0ba902b7"),
                )  # fmt: skip
                some.append(Content(subjects.subject(CLUSTER, ref, kind), lines, codec.encode(body)))
        yield some


async def publish(bus: Bus, guests: int) -> float:
    """Seconds until all messages are on the stream."""
    began = time.perf_counter()
    for some in contents(guests):
        for answer in await bus.client.request_many(some, 60):
            if Acknowledgement.of(answer).error:
                raise RuntimeError("a message was not taken")
    return time.perf_counter() - began


async def fill(bus: Bus, messages: int) -> float:
    """Seconds until the API's cache has caught up."""
    full = asyncio.Event()

    class Filled(Cache):
        """Tells when it has caught up."""

        def complete(self) -> None:
            super().complete()
            full.set()

    cache = Filled()
    began = time.perf_counter()
    following = asyncio.create_task(Follower(bus, subjects.pattern(cluster=CLUSTER), cache).run())
    await asyncio.wait_for(full.wait(), 600)
    seconds = time.perf_counter() - began
    following.cancel()
    if cache.applied != messages:
        raise RuntimeError(f"{cache.applied} of {messages} messages")
    return seconds


async def follow(bus: Bus, messages: int) -> float:
    """Seconds until this project's follower has given every message to a sink that counts."""
    counting = Counting()
    began = time.perf_counter()
    following = asyncio.create_task(Follower(bus, subjects.pattern(cluster=CLUSTER), counting).run())
    await asyncio.wait_for(counting.full.wait(), 600)
    seconds = time.perf_counter() - began
    following.cancel()
    if counting.applied != messages:
        raise RuntimeError(f"{counting.applied} of {messages} messages")
    return seconds


class Counting:
    """A sink that does nothing else."""

    def __init__(self) -> None:
        self.applied = 0
        self.full = asyncio.Event()

    def begin(self) -> None:
        """A fill begins."""

    def apply(self, message: Message) -> None:
        """One more."""
        self.applied += 1

    def complete(self) -> None:
        """All were given."""
        self.full.set()


async def bare(bus: Bus, messages: int) -> float:
    """Seconds until nats-py's ordered consumer has given every message to a callback."""
    counted, done = 0, asyncio.Event()

    async def count(_msg: Msg) -> None:
        nonlocal counted
        counted += 1
        if counted == messages:
            done.set()

    began = time.perf_counter()
    subscription = await bus.js.subscribe(
        subjects.pattern(cluster=CLUSTER), stream=bus.settings.stream, cb=count, ordered_consumer=True,
        deliver_policy=DeliverPolicy.LAST_PER_SUBJECT, pending_msgs_limit=-1, pending_bytes_limit=-1,
    )  # fmt: skip
    await asyncio.wait_for(done.wait(), 600)
    seconds = time.perf_counter() - began
    await subscription.unsubscribe()
    return seconds


def seconds_of(action: Callable[[], None]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Publish, restart, read in turns, report."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=cache", description=__doc__)
    parser.add_argument("--guests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logs.configure(Log(level="error"))
    messages = arguments.guests * len(KINDS)
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory, "nats")) as server:
        settings = Nats(servers=(server.url,), timeout=60, bucket="")

        async def run(action: Callable[[Bus, int], Awaitable[float]], number: int) -> float:
            async with Bus(settings, "bench") as bus:
                await bus.ensure_stream()
                return await action(bus, number)

        say(f"publishing {messages:,} messages")
        publishing = asyncio.run(run(publish, arguments.guests))
        server.kill()
        after_kill = seconds_of(server.start)
        server.stop()
        start = seconds_of(server.start)
        size = int(subprocess.check_output(["du", "-sb", directory]).split()[0])
        ways = {"cache": fill, "follower": follow, "bare consumer": bare}
        took: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(arguments.rounds):
            for name, way in ways.items():
                gc.collect()
                took[name].append(asyncio.run(run(way, messages)))
                say(f"round {number + 1} of {arguments.rounds}, {name}: {took[name][-1]:.1f} s")
    median = {name: statistics.median(seconds) for name, seconds in took.items()}
    print(f"{messages:,} messages: {size / 2**20:,.0f} MiB on disk, published in {publishing:.0f} s")
    print(f"server start: {start:.1f} s after a stop, {after_kill:.1f} s after a kill")
    for name, seconds in median.items():
        print(f"{name:<14}{seconds:>8.1f} s{messages / seconds:>12,.0f} messages a second")
    figures = {
        "messages": messages,
        "stream_bytes": size,
        "server_start_seconds": round(start, 2),
        "server_start_after_kill_seconds": round(after_kill, 2),
        "fill_seconds": round(median["cache"], 2),
        "ratio_of_follower_to_bare_consumer": round(median["bare consumer"] / median["follower"], 2),
        "ratio_to_bare_consumer": round(median["bare consumer"] / median["cache"], 2),
    }
    print(json.dumps(figures))


def say(what: str) -> None:
    """Progress, beside the results."""
    print(f"  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
