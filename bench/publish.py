"""
How fast a burst of snapshots gets onto the stream, every message acknowledged, on file storage.

Ways to publish the same number of 2 KB messages, in turns, each on a fresh NATS server: this project's publisher
(CloudEvents headers, message ids and fences included) with one change about each of many guests, and with five about
each, which go out as atomic batches; nats-py's `publish_async` with 1,000 messages in flight, and the Go client with as
many, the limit (`bench/publish_limit`). The last two send a message id and nothing else. What of the difference to the
limit the server's work on headers and fences is, the Go client shows with the headers that this publisher sends. The
stream has no key-value view, which would have the server write everything twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from guestwire import codec, logs, subjects
from guestwire.jetstream import Bus
from guestwire.settings import Log, Nats, Publish
from guestwire.snapshot import AgentState, GuestRef, GuestSnapshot, Kind, ListMeta, Part, Phase, User, UserList
from lab.kube_build import go_toolchain
from lab.nats_server import NatsServer
from lab.paths import cache_dir
from publishers.jetstream import JetStreamPublisher
from publishers.ledger import Ledger, Page

WINDOW = 1000
LOOK = (Kind.USERLIST, Kind.FILESYSTEMLIST, Kind.GUESTOSINFO, Kind.INTERFACES, Kind.LOAD)
"""What one look at a guest finds, when it finds more than one change."""
CLUSTER = "bench"

Way = Callable[[Bus, int, int], Awaitable[float]]


def guest(number: int) -> GuestRef:
    """One of many."""
    return GuestRef("bench", f"vm{number}")


def ours(kinds: tuple[Kind, ...]) -> Way:
    """
    Seconds for a burst of snapshots of guests that are known already, as after a restart of their host: from the first
    offer to the last acknowledgement. Bodies are made before that, as they are by the other ways.
    """

    async def run(bus: Bus, messages: int, size: int) -> float:
        publisher = JetStreamPublisher(bus, CLUSTER, Publish())
        running = asyncio.create_task(publisher.run())
        refs = [guest(number) for number in range(messages // len(kinds))]
        for first in range(0, len(refs), 1000):
            for ref in refs[first:][:1000]:
                publisher.offer(_look(ref, codec.part(Kind.AGENT, _agent(ref), codec.now())))
            for ref in refs[first:][:1000]:
                await publisher.settled(ref)
        body = UserList((User("u" * (size - 40)),), ListMeta())
        snapshots = [_look(ref, *(codec.part(kind, body, codec.now()) for kind in kinds)) for ref in refs]
        began = time.perf_counter()
        for number, snapshot in enumerate(snapshots):
            publisher.offer(snapshot)
            if number % 100 == 99:  # offers come from the event loop, a few in each of its turns
                await asyncio.sleep(0)
        publisher.close()
        await running  # until all is acknowledged
        return time.perf_counter() - began

    return run


def _look(ref: GuestRef, *parts: Part) -> GuestSnapshot:
    return GuestSnapshot(ref, "uid", "h", parts, codec.new_trace_id())


def _agent(ref: GuestRef) -> AgentState:
    return AgentState(
        "bench", ref.name, "uid", "d", "u", "h", Phase.RUNNING, channel=True, connected=True, since=codec.now()
    )


async def publish_async(bus: Bus, messages: int, size: int) -> float:
    """Seconds of nats-py's own way to publish many messages."""
    stream = bus.client.jetstream(publish_async_max_pending=WINDOW, timeout=60)
    body = b"x" * size
    began = time.perf_counter()
    acknowledgements = [
        await stream.publish_async(
            subjects.subject(CLUSTER, guest(number), Kind.USERLIST), body, headers={"Nats-Msg-Id": f"python-{number}"}
        )
        for number in range(messages)
    ]
    await asyncio.gather(*acknowledgements)
    return time.perf_counter() - began


def limit(program: Path, headers: str = "") -> Way:
    """Seconds of the Go client."""

    async def run(bus: Bus, messages: int, size: int) -> float:
        prefix = subjects.subject(CLUSTER, guest(0), Kind.USERLIST).rpartition(".vm0.")[0]
        arguments = [str(program), bus.settings.servers[0], prefix, str(messages), str(size), str(WINDOW)]
        arguments += [headers] if headers else []
        return float(await asyncio.to_thread(subprocess.check_output, arguments))

    return run


def our_headers() -> str:
    """Those of a message of this publisher: the first about its subject."""
    ref, bus = guest(0), Bus(Nats(), "bench")
    part = Part(Kind.USERLIST, b"", "", codec.now())
    page = Page(subjects.of_guest(CLUSTER, ref).removesuffix("*"))
    return Ledger(bus, CLUSTER, Publish()).message(page, _look(ref, part), part).content.headers


async def measure(way: Way, messages: int, size: int) -> float:
    """Messages a second of one way, on a server of its own."""
    with tempfile.TemporaryDirectory() as directory, NatsServer(Path(directory, "nats")) as server:
        async with Bus(Nats(servers=(server.url,), timeout=60, bucket=""), "bench") as bus:
            await bus.ensure_stream()
            seconds = await way(bus, messages, size)
            held = await bus.js.stream_info(bus.settings.stream, subjects_filter=f"{subjects.PREFIX}.*.*.>")
            kinds = [subject for subject in held.state.subjects or () if not subject.endswith(f".{Kind.AGENT}")]
            if len(kinds) != messages:
                raise RuntimeError(f"{way}: not every message is on the stream")
    return messages / seconds


def build() -> Path:
    """The Go program, built anew: a second, once its modules are there."""
    program = cache_dir() / "publish_limit"
    source = Path(__file__).parent / "publish_limit"
    go = go_toolchain(cache_dir(), say)
    subprocess.run([go, "build", "-o", program, "."], cwd=source, check=True)
    return program


def say(what: str) -> None:
    """Progress, beside the results."""
    print(f"  {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Take turns, report."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=publish", description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--bytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logs.configure(Log(level="error"))
    program = build()
    ways: dict[str, Way] = {
        "this publisher": ours(LOOK[:1]),
        "five at a time": ours(LOOK),
        "publish_async": publish_async,
        "Go client": limit(program),
        "Go, our headers": limit(program, our_headers()),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        for name, way in ways.items():
            rates[name].append(asyncio.run(measure(way, arguments.messages, arguments.bytes)))
            say(f"round {number + 1} of {arguments.rounds}, {name}: {rates[name][-1]:,.0f} messages a second")
    median = {name: statistics.median(measured) for name, measured in rates.items()}
    for name, rate in median.items():
        print(f"{name:<16}{rate:>10,.0f} messages a second")
    figures = {
        "messages": arguments.messages,
        "ratio_to_publish_async": round(median["this publisher"] / median["publish_async"], 2),
        "ratio_of_batches_to_publish_async": round(median["five at a time"] / median["publish_async"], 2),
        "ratio_to_limit": round(median["this publisher"] / median["Go client"], 2),
        "ratio_to_limit_with_our_headers": round(median["this publisher"] / median["Go, our headers"], 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
