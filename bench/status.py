"""
What the status writer costs: patches a second beside the same patches by plain HTTP, and the time to a patched status.

A real kube-apiserver, a real NATS server and the process `guestwire write-status`. In each round every VMI's guest gets
another address, so the writer has one patch per VMI to send. The same patches go by hand-written HTTP to as many
objects of a definition that is the same but for its group, which the writer does not watch, over as many connections as
the writer has workers. The two take turns, a slice of the VMIs each, so that whatever else the machine does slows down
both. The ratio is the median over the rounds. Afterwards single changes are timed, from publishing the message to a
watcher's sight of the status, and the present facts are published once more, which should cost no patch at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import statistics
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path

import msgspec
import yaml

from bench.plain_http import Http
from bench.vmis import GROUP, SYSTEM, VMIS, Guest
from guestwire import logs
from guestwire.jetstream import Bus
from guestwire.settings import Log, Nats
from guestwire.snapshot import (
    Kind,
)
from lab.build import build
from lab.kube_apiserver import VMI_CRD, KubeApiserver
from lab.nats_server import NatsServer
from lab.process import Daemon, OwnedDirectory, free_port, wait_until

DURABLE = "bench"
PLAIN_GROUP = "plain.example"
SLICE = 100
"""VMIs that change at once."""


class Bench:
    """The servers, the writer's guests and as many for plain HTTP."""

    def __init__(self, directory: Path, kube: KubeApiserver, bus: Bus, vmis: int, workers: int) -> None:
        self.kube = kube
        self.bus = bus
        keys = kube.ca.issue(directory / "administrator", "bench", organization="system:masters")
        self.context = ssl.create_default_context(cafile=str(kube.ca.certificate))
        self.context.load_cert_chain(keys.certificate, keys.key)
        self.workers = workers
        self.health = free_port()
        self.log = directory / "writer.log"
        settings: dict[str, object] = {
            "NATS__SERVERS": bus.settings.servers[0],
            "STATUS__KUBECONFIG": kube.kubeconfig,
            "STATUS__HEALTH": f"127.0.0.1:{self.health}",
            "STATUS__MIN_INTERVAL": 0,
            "STATUS__MAX_RATE": 0,
            "STATUS__WORKERS": workers,
            "STATUS__DURABLE": DURABLE,
        }
        env = {**os.environ, **{f"GUESTWIRE_{name}": str(value) for name, value in settings.items()}}
        program = Path(sys.executable).with_name("guestwire")
        self.process = Daemon([program, "write-status"], log=self.log, env=env)
        self.cpu_ms: list[float] = []
        self.written = [Guest(number) for number in range(vmis)]
        self.plain = [Guest(number, PLAIN_GROUP) for number in range(vmis)]
        self.connections: list[Http] = []

    async def create(self) -> None:
        """All VMIs, and what is known about them before the first round."""
        definition = yaml.safe_load(VMI_CRD.read_text())
        definition["metadata"]["name"] = f"virtualmachineinstances.{PLAIN_GROUP}"
        definition["spec"]["group"] = PLAIN_GROUP
        definition["spec"]["names"]["categories"] = definition["spec"]["names"]["shortNames"] = []
        self.kube.apply(json.dumps(definition))
        self.kube.kubectl("wait", "--for=condition=Established", f"crd/{definition['metadata']['name']}")
        await asyncio.sleep(3)  # the API server holds back creations right after a definition appears
        for guests in (self.written, self.plain):
            await self.send([(guest, "POST", VMIS.format(guest.group), guest.manifest()) for guest in guests])
        await self.patch_plain(self.plain, 0)
        for guest in self.written:
            await self.publish(guest.message(Kind.AGENT, guest.agent), guest.message(Kind.GUESTOSINFO, SYSTEM))
        await self.publish(*(guest.message(Kind.INTERFACES, guest.interfaces(0)) for guest in self.written))

    async def send(self, requests: Iterable[tuple[Guest, str, str, bytes]]) -> float:
        """Requests over as many connections as the writer has workers; seconds. The guests' VMIs are the answers."""
        todo = iter(requests)

        async def worker(http: Http) -> None:
            for guest, method, path, body in todo:
                kind = "application/json-patch+json" if method == "PATCH" else "application/json"
                status = await http.send(method, path, body, kind)
                answer = await http.body()
                assert status < 300, answer
                guest.vmi = msgspec.json.decode(answer)

        began = time.perf_counter()
        await asyncio.gather(*map(worker, self.connections))
        return time.perf_counter() - began

    async def patch_plain(self, guests: list[Guest], turn: int) -> float:
        """The same patches by plain HTTP; seconds."""
        path = f"{VMIS}/{{}}?fieldManager=guestwire"
        patches = [(each, "PATCH", path.format(each.group, each.name), each.patch(turn)) for each in guests]
        return await self.send(patches)

    async def publish(self, *messages: tuple[str, bytes, dict[str, str]]) -> None:
        """Send messages to the stream; what is not stored raises."""
        js = self.bus.js
        futures = [await js.publish_async(name, body, headers=headers) for name, body, headers in messages]
        await asyncio.gather(*futures)

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[None]:
        """The process, ready and with nothing to do."""
        self.process.start()
        try:
            await asyncio.to_thread(wait_until, lambda: self.metric("up") == 1, 60, "the writer is not ready")
            await self.idle()
            yield
        finally:
            self.process.stop()

    async def idle(self) -> None:
        """Until every message is settled and no guest waits."""
        while True:
            info = await self.bus.js.consumer_info(self.bus.settings.stream, DURABLE)
            waiting = await asyncio.to_thread(self.metric, "guestwire_status_pending")
            if not (info.num_pending or info.num_ack_pending or waiting):
                return
            await asyncio.sleep(0.5)  # seldom: it costs the writer time as well

    def metric(self, name: str) -> float:
        """A sample of the writer's; `up` is 1 when it is ready."""
        path = "readyz" if name == "up" else "metrics"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/{path}", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return 0
        lines = (line.split() for line in text.splitlines())
        return 1 if name == "up" else next((float(line[1]) for line in lines if line[0] == name), 0)

    async def write(self, guests: list[Guest], turn: int) -> float:
        """Seconds for all patches; while the changes are published the process is held, as that is not its work."""
        pid = self.process.pid
        assert pid
        with self.log.open() as log:
            log.seek(0, os.SEEK_END)
            os.kill(pid, signal.SIGSTOP)
            await self.publish(*(guest.message(Kind.INTERFACES, guest.interfaces(turn)) for guest in guests))
            began, used = time.time(), self.cpu(pid)
            os.kill(pid, signal.SIGCONT)
            told: list[str] = []
            while len(told) < len(guests):
                await asyncio.sleep(0.02)
                told += [line for line in log.read().splitlines() if '"event":"patched"' in line]
        self.cpu_ms.append(1000 * (self.cpu(pid) - used) / len(guests))
        return max(datetime.fromisoformat(json.loads(line)["time"]).timestamp() for line in told) - began

    async def round(self, turn: int) -> tuple[float, float]:
        """Patches a second of the writer and by plain HTTP, in turns."""
        seconds = [0.0, 0.0]
        for first in range(0, len(self.written), SLICE):
            here = slice(first, first + SLICE)
            seconds[0] += await self.write(self.written[here], turn)
            await self.idle()
            seconds[1] += await self.patch_plain(self.plain[here], turn)
        return len(self.written) / seconds[0], len(self.written) / seconds[1]

    @staticmethod
    def cpu(pid: int) -> float:
        """Seconds of processor time that a process has used."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def latencies(self, changes: int, turn: int) -> list[float]:
        """Milliseconds from publishing a change to a watcher's sight of it, one at a time."""
        took: list[float] = []
        async with Http(self.kube.url, self.context) as http:
            path = VMIS.format(GROUP)
            await http.send("GET", f"{path}?limit=1")
            version = msgspec.json.decode(await http.body())["metadata"]["resourceVersion"]
            await http.send("GET", f"{path}?watch=true&resourceVersion={version}")
            chunks = http.chunks()
            for number in range(changes):
                guest = self.written[number % len(self.written)]
                view = guest.interfaces(turn + number // len(self.written))
                assert view.guest is not None
                wanted = f'"{view.guest[0].addresses[0].address}"'.encode()
                message = guest.message(Kind.INTERFACES, view)
                began = time.perf_counter()
                await self.publish(message)
                while wanted not in await anext(chunks):
                    pass
                took.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(0.01)
        return took

    async def unchanged(self, turn: int) -> float:
        """Patches for facts that are known already."""
        await self.write(self.written, turn)
        await self.idle()
        before = await asyncio.to_thread(self.metric, "guestwire_status_patches_total")
        await self.publish(*(each.message(Kind.INTERFACES, each.interfaces(turn)) for each in self.written))
        await self.publish(*(each.message(Kind.AGENT, each.agent) for each in self.written))
        await self.idle()
        return await asyncio.to_thread(self.metric, "guestwire_status_patches_total") - before


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The figures, by name."""
    parts = build(progress=lambda _: None)
    with OwnedDirectory() as directory, KubeApiserver(parts.kube, directory / "kube") as kube:
        kube.install_crd()
        with NatsServer(directory / "nats") as nats:
            async with Bus(Nats(servers=(nats.url,)), "bench") as bus:
                await bus.ensure_stream()
                bench = Bench(directory, kube, bus, arguments.vmis, arguments.workers)
                async with AsyncExitStack() as stack:
                    for _ in range(arguments.workers):
                        http = await stack.enter_async_context(Http(kube.url, bench.context))
                        bench.connections.append(http)
                    await bench.create()
                    await stack.enter_async_context(bench.writer())
                    rounds = []
                    for turn in range(1, arguments.rounds + 1):
                        rounds.append(await bench.round(turn))
                        print(
                            "  round {}: writer {:.0f}/s, plain HTTP {:.0f}/s".format(turn, *rounds[-1]),
                            file=sys.stderr,
                        )
                    turn = arguments.rounds + 1
                    times = await bench.latencies(arguments.changes, turn)
                    took = statistics.quantiles(times, n=100, method="inclusive")
                    patches = await bench.unchanged(turn + 1 + arguments.changes // arguments.vmis)
                return {
                    "patches_per_second": round(statistics.median(writer for writer, _ in rounds), 1),
                    "raw_patches_per_second": round(statistics.median(plain for _, plain in rounds), 1),
                    "patches_ratio_to_raw": round(statistics.median(writer / plain for writer, plain in rounds), 3),
                    "cpu_ms_per_patch": round(statistics.median(bench.cpu_ms), 3),
                    "status_ms_p50": round(took[49], 2),
                    "status_ms_p99": round(took[98], 2),
                    "patches_when_unchanged": patches,
                }


def main() -> None:
    """Measure, then a table for people and a line for programs."""
    parser = argparse.ArgumentParser(prog="make bench BENCH=status", description=__doc__)
    parser.add_argument("--vmis", type=int, default=500, help="VMIs of the writer, and as many for plain HTTP")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=16, help="patches under way at once, of both")
    parser.add_argument("--changes", type=int, default=200, help="changes that are timed one by one")
    arguments = parser.parse_args()
    logs.configure(Log(level="error"))
    figures = asyncio.run(measure(arguments))
    for name, value in figures.items():
        print(f"{name:<28}{value:>10.2f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
