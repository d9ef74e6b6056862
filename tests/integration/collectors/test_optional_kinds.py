"""Optional kinds of a real guest, from its agent over NATS to the API: read where they are switched on, else not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from api.cache import Cache
from api.groups import GUESTWIRE
from collectors import metrics
from collectors.agent_commands import OPTIONAL, AgentCommand
from collectors.collector import Collector
from guestwire import client, codec, subjects
from guestwire.follower import Follower
from guestwire.jetstream import Bus
from guestwire.kinds import OPTIONAL as KINDS
from guestwire.lifecycle import cancel
from guestwire.machine import Clock, CpuStatsList, DiskStatsList
from guestwire.settings import Collect, Libvirt, Publish, Settings
from guestwire.snapshot import GuestRef, Kind
from lab.guest import Guest
from lab.guest_image import GuestImage
from lab.libvirtd import Libvirtd
from publishers.jetstream import JetStreamPublisher
from publishers.readings import Readings

REF = GuestRef("prod", "measured")
HAS = tuple(kind for kind in KINDS if kind is not Kind.LOAD)
"""What the agent of the lab's guest has; guest-get-load came with QEMU 10.0."""
ON = dict.fromkeys(map(str, KINDS), 0.5)
Eventually = Callable[..., Awaitable[float]]


@pytest.fixture(scope="module")
def guest(host: Libvirtd, image: GuestImage) -> Iterator[Guest]:
    """A guest for all tests of this module; each leaves it as it found it."""
    with Guest(host, image, namespace=REF.namespace, name=REF.name) as machine:
        machine.wait_agent()
        yield machine


class Pipeline:
    """A collector, its publisher, and the API's cache behind them."""

    def __init__(self, uri: str, bus: Bus, **collect: Any) -> None:
        self.bus = bus
        settings = Settings(libvirt=Libvirt(uris=(uri,)), collect=msgspec.convert(collect, Collect))
        self.publisher = JetStreamPublisher(bus, "c", Publish())
        self.collector = Collector(settings, self.publisher)
        self.cache = Cache()

    def get(self, kind: str) -> Any:
        """What the API answers; None unless it is a body."""
        answer = self.cache.find(GUESTWIRE, REF, kind)
        return json.loads(answer.body) if answer.status == 200 else None

    def error(self, kind: str) -> tuple[int, str]:
        """Status and words of what the API answers instead of a body."""
        answer = self.cache.find(GUESTWIRE, REF, kind)
        return answer.status, str(json.loads(answer.body)["message"])


@asynccontextmanager
async def collecting(uri: str, bus: Bus, **collect: Any) -> AsyncIterator[Pipeline]:
    """All of it at work."""
    await bus.ensure_stream()
    one, stop = Pipeline(uri, bus, **collect), asyncio.Event()
    await Readings(bus, "c", "h", one.publisher, one.collector.read_now).start()
    following = asyncio.create_task(Follower(bus, subjects.pattern(cluster="c"), one.cache).run())
    publishing, running = asyncio.create_task(one.publisher.run()), asyncio.create_task(one.collector.run(stop))
    try:
        yield one
    finally:
        stop.set()
        await running
        one.publisher.close()
        await publishing
        await cancel(following)


def asked(command: AgentCommand) -> float:
    """How often this process has sent a command to an agent."""
    return sum(
        sample.value
        for metric in metrics.COMMAND_SECONDS.collect()
        for sample in metric.samples
        if sample.name.endswith("_count") and sample.labels["command"] == command
    )


async def test_switched_on(host: Libvirtd, guest: Guest, bus: Bus, eventually: Eventually) -> None:
    """Each kind the agent has arrives, the API's bytes are the bus's, and what it lacks is never sent nor published."""
    before = asked(AgentCommand.LOAD)
    async with collecting(host.uri, bus, **ON) as pipeline:
        for kind in HAS:
            await eventually(lambda kind=kind: pipeline.get(kind), within=60, what=kind)
        await eventually(lambda: (pipeline.get("agent") or {}).get("readings", {}).get("load"), within=60)
        last = await bus.last("c", REF)
        assert {str(kind) for kind in Kind} - {"load"} == set(last)
        said = pipeline.error("load")
    real = {kind: guest.agent_command(f"guest-get-{kind}") for kind in ("disks", "vcpus", "diskstats")}

    assert (404, "guest-get-load: this agent does not have the command, or it is disabled") == (
        said[0],
        said[1].partition("has not been read: ")[2],
    )
    assert before == asked(AgentCommand.LOAD)
    disks = pipeline.get("disks")["disks"]
    assert [disk["name"] for disk in real["disks"]] == [disk["name"] for disk in disks]
    assert "virtio" == next(disk for disk in disks if disk["name"] == "/dev/vda")["address"]["busType"]
    assert [{"id": 0, "online": True, "canOffline": real["vcpus"][0]["can-offline"]}] == pipeline.get("vcpus")["vcpus"]
    assert [disk["name"] for disk in real["diskstats"]] == [disk["name"] for disk in pipeline.get("diskstats")["disks"]]


async def test_switched_off(host: Libvirtd, guest: Guest, bus: Bus, eventually: Eventually) -> None:
    """With the defaults no optional command is sent, and the API says what to do about it."""
    before = {row.command: asked(row.command) for row in OPTIONAL}
    async with collecting(host.uri, bus) as pipeline:
        await eventually(lambda: pipeline.get("filesystemlist"), within=60)
        looked = asked(AgentCommand.USERS)
        await eventually(lambda: asked(AgentCommand.USERS) > looked + 1, within=60)  # the burst goes on
        last = await bus.last("c", REF)

    assert {"agent", "guestosinfo", "userlist", "filesystemlist", "interfaces"} == set(last)
    assert before == {row.command: asked(row.command) for row in OPTIONAL}
    assert {row.kind: 404 for row in OPTIONAL} == {row.kind: pipeline.error(row.kind)[0] for row in OPTIONAL}
    assert pipeline.error("vcpus")[1].endswith("it is read where collect.vcpus is set, and on demand")


async def test_on_demand(host: Libvirtd, guest: Guest, bus: Bus, eventually: Eventually) -> None:
    """What is switched off is read when somebody asks for it; what the agent lacks is not, even then."""
    async with collecting(host.uri, bus) as pipeline:
        await eventually(lambda: pipeline.get("filesystemlist"), within=60)
        sent = asked(AgentCommand.LOAD)
        revisions = await client.read_now(bus, REF, cluster="c", kind="vcpus", timeout=30)
        await eventually(lambda: pipeline.get("vcpus"), within=30)
        without = await client.read_now(bus, REF, cluster="c", kind="load", timeout=30)

        assert pipeline.cache.find(GUESTWIRE, REF, "vcpus").etag == f'"{revisions["vcpus"]}"'.encode()
        assert "load" not in without
        assert sent == asked(AgentCommand.LOAD)


async def test_clock(host: Libvirtd, guest: Guest, bus: Bus, eventually: Eventually) -> None:
    """A guest whose clock is an hour behind is an hour behind, within what the reading says of its uncertainty."""

    def clock() -> Clock:
        return msgspec.convert(pipeline.get("time"), Clock)

    async with collecting(host.uri, bus, time=0.5) as pipeline:
        await eventually(lambda: pipeline.get("time"), within=60)
        first = clock()
        before = int(time.time())
        await asyncio.to_thread(guest.control, "clock", "set", before - 3600)
        late = time.time() - before
        await eventually(lambda: clock().offset < -1800, within=60)
        behind = clock()
        await asyncio.to_thread(guest.control, "clock", "set", int(time.time()))
        await eventually(lambda: clock().offset > -1800, within=60)

    # the guest sets it some time between the request and the reply
    assert -3600 - late - behind.uncertainty - 0.1 <= behind.offset <= -3600 + behind.uncertainty + 0.1
    assert 0 < first.uncertainty < 5


async def test_counters(host: Libvirtd, guest: Guest, bus: Bus, eventually: Eventually) -> None:
    """What a guest does is in the difference of two messages, over the difference of their times."""
    ages = {"cpustats": 0.5, "diskstats": 0.5, "activity_age": 2}
    async with collecting(host.uri, bus, **ages) as pipeline:
        await eventually(lambda: pipeline.get("diskstats"), within=60)
        written = _written(pipeline)
        await asyncio.to_thread(guest.control, "fill", "/data", 8)
        await eventually(lambda: _written(pipeline) - written >= 8 * 2**20, within=60)
        messages = [m async for m in client.follow(bus, kind="cpustats", after=1, live=False)]
        await asyncio.to_thread(guest.control, "fill", "/data", 0)

    assert len(messages) > 1
    first, last = messages[0], messages[-1]
    passed = (last.event.time - first.event.time).total_seconds() * 1000
    counted = _milliseconds(last.body) - _milliseconds(first.body)
    assert passed / 5 - 1000 < counted < passed * 5 + 1000  # milliseconds, however badly an emulated CPU keeps time


def _written(pipeline: Pipeline) -> int:
    stats = msgspec.convert(pipeline.get("diskstats"), DiskStatsList)
    return next(disk.write_bytes or 0 for disk in stats.disks if disk.name == "vda")


def _milliseconds(body: bytes) -> int:
    """Of CPU 0, whatever it did."""
    cpu = codec.decode(body, CpuStatsList).cpus[0]
    return cpu.user + cpu.nice + cpu.system + cpu.idle + sum((cpu.iowait or 0, cpu.irq or 0, cpu.softirq or 0))


async def test_disabled_in_the_guest(host: Libvirtd, guest: Guest, bus: Bus, eventually: Eventually) -> None:
    """What the guest's administrator switches off is not sent any more; what was read stays, with the reason."""
    async with collecting(host.uri, bus, vcpus=0.5) as pipeline:
        await eventually(lambda: pipeline.get("vcpus"), within=60)
        await asyncio.to_thread(guest.control, "agent", "block", "guest-get-vcpus")
        await eventually(lambda: _error(pipeline, "vcpus"), within=60)
        sent = asked(AgentCommand.VCPUS)
        users = asked(AgentCommand.USERS)
        await eventually(lambda: asked(AgentCommand.USERS) > users, within=60)
        assert (sent, 1) == (asked(AgentCommand.VCPUS), len(pipeline.get("vcpus")["vcpus"]))
        await asyncio.to_thread(guest.control, "agent", "block", "")
        await eventually(lambda: not _error(pipeline, "vcpus"), within=60)


def _error(pipeline: Pipeline, kind: str) -> str:
    reading = (pipeline.get("agent") or {}).get("readings", {}).get(kind, {})
    return str(reading.get("error", ""))
