"""
How fast the API reads, beside nginx, and what its cache costs.

`guestwire serve`, filled from a real NATS server, answers on one core; wrk asks from the other, over 64 connections
that are kept, for a thousand of the guests in turn. Beside it, in the same run and in turns: the same with a bearer
token; nginx with the same bytes under the same paths as static files, as it comes and told to keep them open; the same
server where its application makes the answer (the plain ASGI path: the path's other version, which is in no table of
answers); reads while guests change, a thousand times a second; and a real guest whose agent is asked through libvirt
for one fact per read. Ratios are medians over the rounds. NATS and whoever publishes are on the core of the load.

On a machine that has other work, the load may be what is slow. Reads per second of the server's own CPU time, shown
beside, tell what a read costs all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import libvirt
import libvirt_qemu

from api.groups import KUBEVIRT
from bench import api_guests
from bench.api_servers import LOAD, TUNED, Api, Load, Wrk, cpu_seconds, static
from guestwire import logs
from guestwire.settings import Log
from guestwire.snapshot import Kind
from lab.errors import LabError
from lab.guest import Guest
from lab.guest_image import build as build_image
from lab.libvirtd import Libvirtd
from lab.nats_server import NatsServer
from lab.paths import cache_dir
from lab.process import OwnedDirectory, wait_until

ROOT = Path(__file__).parents[1]
ASKED = 1000
"""Guests that are read in turn."""
TOKEN = "bench"  # noqa: S105


class Direct:
    """A real guest, asked through libvirt."""

    def __init__(self, uri: str, name: str) -> None:
        self._domain = libvirt.open(uri).lookupByName(name)

    def rate(self, seconds: float) -> float:
        """Reads a second, one command each: less than `guestosinfo` is made of. An agent takes one at a time."""
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            libvirt_qemu.qemuAgentCommand(self._domain, '{"execute":"guest-get-osinfo"}', 5, 0)
            count += 1
        return count / (time.monotonic() - began)


@contextmanager
def changing(url: str, guests: int, rate: int) -> Iterator[None]:
    """While guests change."""
    argv = ["taskset", "-c", LOAD, sys.executable, "-m", "bench.api_guests", url, str(guests), str(rate)]
    process = subprocess.Popen(argv, cwd=ROOT)
    try:
        time.sleep(2)
        yield
    finally:
        process.kill()
        process.wait()


class Bench:
    """All the servers, and the rounds."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, resources: ExitStack) -> None:
        self.guests, self.changes, self.seconds = arguments.guests, arguments.changes, arguments.seconds
        self.directory = directory
        self.figures: dict[str, float] = {"guests": self.guests}
        say("booting a guest")
        host = resources.enter_context(Libvirtd(directory / "host"))
        real = resources.enter_context(Guest(host, build_image(cache_dir(), say), namespace="default", name="bench"))
        real.wait_agent()
        self.direct = Direct(host.uri, real.domain_name)
        pin()
        server = resources.enter_context(NatsServer(directory / "nats"))
        self.nats = server.url
        size = asyncio.run(api_guests.publish(self.nats, self.guests, say))
        self._start(resources, size)
        numbers = range(0, self.guests, max(1, self.guests // ASKED))
        paths = {number: KUBEVIRT.path(api_guests.guest(number), Kind.GUESTOSINFO).decode() for number in numbers}
        files = {path: self.open.ask(path) for path in paths.values()}
        self.wrk = Wrk(directory, list(files), self.seconds)
        self.nginx = resources.enter_context(static(directory / "nginx", files))
        self.tuned = resources.enter_context(static(directory / "nginx-tuned", files, TUNED))

    def _start(self, resources: ExitStack, size: int) -> None:
        """An API that knows nobody, for its memory; the open one; the one that asks for a token."""
        empty = Api(self.directory, self.nats, "empty", CLUSTER="none")
        resources.callback(empty.process.stop)
        empty.start()
        idle = empty.memory
        empty.process.stop()
        self.open = Api(self.directory, self.nats, "open")
        resources.callback(self.open.process.stop)
        self.figures["cache_ready_seconds"] = round(self.open.start(), 1)
        self.figures["cache_ready_cpu_seconds"] = round(cpu_seconds(self.open.process), 1)
        taken = self.open.metric("guestwire_api_messages_applied_total")
        self.figures["messages_taken_per_message"] = round(taken / self.guests / len(api_guests.KINDS), 2)
        self.figures["body_bytes_per_guest"] = round(size / self.guests)
        self.figures["bytes_per_guest"] = round((self.open.memory - idle - size) / self.guests)
        say(f"cache ready: {self.figures}")
        readers = self.directory / "readers"
        readers.write_text(f"bench sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()} *\n")
        self.closed = Api(self.directory, self.nats, "closed", API__READERS=str(readers), API__OPEN_METRICS="true")
        resources.callback(self.closed.process.stop)
        self.closed.start()

    def round(self) -> dict[str, Load]:
        """Each way once."""
        token = f"Authorization=Bearer {TOKEN}"
        loads = {
            "nginx": self.wrk.run(self.nginx),
            "tuned": self.wrk.run(self.tuned),
            "read": self.wrk.run(self.open),
            "authenticated": self.wrk.run(self.closed, token),
            "asgi": self.wrk.run(self.open, paths="other-paths"),
        }
        with self.closed.paused():  # or both would take in the changes, on one core
            with changing(self.nats, self.guests, self.changes):
                before, began = self.open.revision, time.monotonic()
                loads["changing"] = self.wrk.run(self.open)
                applied = (self.open.revision - before) / (time.monotonic() - began)
            loads["quiet"] = self.wrk.run(self.open)
        wait_until(lambda: self.closed.revision >= self.open.revision, 120, "the other API has caught up")
        loads["direct"] = Load(self.direct.rate(self.seconds))
        loads["applied"] = Load(applied)
        return loads


def pin() -> None:
    """This process and all that it starts from now on to the core of the load."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {int(LOAD)})


def report(rounds: list[dict[str, Load]], figures: dict[str, float]) -> None:
    """A table for people, a line for programs."""

    def ratio(one: str, other: str, field: str = "rate") -> float:
        at = Load._fields.index(field)
        return statistics.median(each[one][at] / each[other][at] for each in rounds)

    names = {
        "nginx": "nginx, static files",
        "tuned": "nginx, files kept open",
        "read": "guestwire, cached read",
        "authenticated": "guestwire, with a token",
        "changing": "guestwire, amid changes",
        "asgi": "guestwire, ASGI path",
        "direct": "agent through libvirt",
    }
    print(f"{'':<26}{'reads/s':>10}{'to nginx':>10}{'p99 ms':>9}{'reads/CPU s':>13}{'to nginx':>10}")
    for name, text in names.items():
        rate, p99, per_cpu = (
            statistics.median(values) for values in zip(*(each[name] for each in rounds), strict=True)
        )
        shown = f"{p99:>9.2f}{per_cpu:>13,.0f}{ratio(name, 'nginx', 'per_cpu'):>10.2f}" if per_cpu else ""
        print(f"{text:<26}{rate:>10,.0f}{ratio(name, 'nginx'):>10.3f}{shown}")
    figures |= {
        "ratio_to_nginx": round(ratio("read", "nginx"), 2),
        "ratio_to_nginx_authenticated": round(ratio("authenticated", "nginx"), 2),
        "ratio_to_nginx_tuned": round(ratio("read", "tuned"), 2),
        "ratio_to_nginx_by_cpu": round(ratio("read", "nginx", "per_cpu"), 2),
        "ratio_to_nginx_authenticated_by_cpu": round(ratio("authenticated", "nginx", "per_cpu"), 2),
        "ratio_to_asgi": round(ratio("read", "asgi"), 2),
        "ratio_to_guest_read": round(ratio("read", "direct")),
        "p99_ms": round(statistics.median(each["read"].p99 for each in rounds), 2),
        "p99_ratio_under_changes": round(ratio("changing", "quiet", "p99"), 2),
        "changes_per_second": round(statistics.median(each["applied"].rate for each in rounds)),
    }
    print(json.dumps(figures))


def say(what: str) -> None:
    """Progress, beside the results."""
    print(f"  {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Fill, take turns, report."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=api", description=__doc__)
    parser.add_argument("--guests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each way in each round")
    parser.add_argument("--changes", type=int, default=1000, help="a second")
    arguments = parser.parse_args()
    logs.configure(Log(level="error"))
    install = ["sh", "lab/install-packages.sh", "lab/packages-bench.txt"]
    subprocess.run(install, cwd=ROOT, check=True, stdout=sys.stderr)
    if len(os.sched_getaffinity(0)) < 2:
        raise LabError("two cores are needed: one for the server, one for the load")
    with OwnedDirectory() as directory, ExitStack() as resources:
        bench = Bench(arguments, directory, resources)
        rounds = []
        for number in range(arguments.rounds):
            rounds.append(bench.round())
            shown = ", ".join(f"{name} {load.rate:,.0f}/s" for name, load in rounds[-1].items())
            say(f"round {number + 1} of {arguments.rounds}: {shown}")
        report(rounds, bench.figures)


if __name__ == "__main__":
    main()
