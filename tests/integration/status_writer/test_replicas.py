"""Several writers at once, killed at random, under load."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import ConsumerInfo

from guestwire.jetstream import Bus
from guestwire.snapshot import (
    DomainInterface,
    FilesystemInfo,
    GuestInterface,
    GuestOSInfo,
    GuestRef,
    Interfaces,
    IPAddress,
    Kind,
    OperatingSystem,
)
from lab.kube_apiserver import KubeApiserver
from lab.nats_server import NatsServer

from .conftest import Vmi, Writer, eventually, new_number

REPLICAS = 3
VMIS = 12
TURNS = 60
SETTLED = 120.0
"""Seconds: what a killed process held is delivered again after 30."""


class Numbered:
    """A VMI whose guest tells ever larger numbers: as its address and as its system's version."""

    def __init__(self, vmi: Vmi, *, pod: bool) -> None:
        self.vmi = vmi
        self.number = 0
        self.connected = True
        status = {"phase": "Running", **({"activePods": {"pod": "node"}} if pod else {})}
        vmi.create(spec={"domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}}]}}}, status=status)

    async def tell(self, choice: random.Random) -> None:
        """Something new, most of the time."""
        what = choice.random()
        if what < 0.7:
            self.number += 1
            await self.vmi.publish(Kind.INTERFACES, self.interfaces)
            await self.vmi.publish(Kind.GUESTOSINFO, self.system)
        elif what < 0.9:
            self.connected = not self.connected
            await self.say_connected()
        else:
            await self.say_connected()

    async def say_connected(self) -> None:
        """The state record."""
        await self.vmi.publish(Kind.AGENT, self.vmi.agent(connected=self.connected))

    @property
    def interfaces(self) -> Interfaces:
        """The number as an address."""
        mac = "52:54:00:00:00:01"
        guest = GuestInterface("eth0", mac, (IPAddress(f"10.0.{self.number // 250}.{self.number % 250}", 24),))
        return Interfaces((DomainInterface("default", mac, 1, "up"),), (guest,))

    @property
    def system(self) -> GuestOSInfo:
        """The number as a version."""
        return GuestOSInfo(FilesystemInfo(None), OperatingSystem(id="debian", version=str(self.number)), "UTC, 0")

    @property
    def expected(self) -> tuple[bool, int, int]:
        """Connected, and both numbers."""
        return self.connected, self.number, self.number

    @property
    def shown(self) -> tuple[bool, int, int]:
        """The same of the status."""
        return shown(self.vmi.get())


def shown(vmi: dict[str, Any]) -> tuple[bool, int, int]:
    """Connected, the number in the address, the number in the version; -1 for none."""
    status = vmi.get("status", {})
    connected = any(each["type"] == "AgentConnected" for each in status.get("conditions", []))
    address = status.get("interfaces", [{}])[0].get("ipAddress", "10.0.0.-1").split(".")
    return connected, int(address[2]) * 250 + int(address[3]), int(status.get("guestOSInfo", {}).get("version", -1))


@contextmanager
def watching(kube: KubeApiserver, file: Path) -> Iterator[None]:
    """Everything that anybody sees of VMIs, as `kubectl get --watch` writes it down."""
    command = [str(kube._binaries.kubectl), f"--kubeconfig={kube.kubeconfig}", "get", "vmi", "-A", "-w", "-o", "json"]
    with file.open("w") as output, subprocess.Popen(command, stdout=output) as process:
        try:
            yield
        finally:
            process.terminate()


def sights(file: Path) -> dict[str, list[tuple[bool, int, int]]]:
    """What was seen of each VMI, in order."""
    found: defaultdict[str, list[tuple[bool, int, int]]] = defaultdict(list)
    text, decoder, position = file.read_text(), json.JSONDecoder(), 0
    while position < len(text.rstrip()):
        document, position = decoder.raw_decode(text, position)
        position += len(text[position:]) - len(text[position:].lstrip())
        found[document["metadata"]["name"]].append(shown(document))
    return found


async def drained(bus: Bus, durable: str) -> ConsumerInfo:
    """The consumer once every message is settled."""
    for _ in range(int(SETTLED)):
        info: ConsumerInfo = await bus.js.consumer_info(bus.settings.stream, durable)
        if not info.num_ack_pending and not info.num_pending:
            return info
        await asyncio.sleep(1)
    raise AssertionError("messages are left")


@pytest.mark.parametrize("seed", [1, 2])
async def test_replicas_killed_at_random(
    kube: KubeApiserver, cluster: str, nats_server: NatsServer, bus: Bus, tmp_path: Path, seed: int
) -> None:
    """
    Three replicas under load, killed and started at random. In the end every status is its guest's last word and no
    message is left; on the way none of what was shown was older than what had been shown before; and then nobody
    writes any more, however often the same facts are told.
    """
    choice = random.Random(seed)
    durable = f"replicas-{new_number()}"
    homes = [tmp_path / str(number) for number in range(REPLICAS)]
    for home in homes:
        home.mkdir()
    given = {"CLUSTER": cluster, "STATUS__DURABLE": durable, "STATUS__GRACE": 3600}
    writers = [Writer(kube, nats_server, home, **given) for home in homes]
    many = [
        Numbered(Vmi(kube, bus, GuestRef("default", f"replicated-{new_number()}"), cluster), pod=bool(number % 2))
        for number in range(VMIS)
    ]
    for writer in writers:
        writer.process.start()
    try:
        await eventually(lambda: all(writer.ready for writer in writers), SETTLED)
        with watching(kube, tmp_path / "watch.json"):
            for one in many:
                await one.say_connected()
            kills = 0
            for _ in range(TURNS):
                for one in choice.sample(many, VMIS // 2):
                    await one.tell(choice)
                writer = choice.choice(writers)
                if not writer.process.alive:
                    writer.process.start()
                elif choice.random() < 0.2:
                    await asyncio.to_thread(writer.process.kill)
                    kills += 1
                await asyncio.sleep(choice.random() / 5)
            for writer in writers:
                if not writer.process.alive:
                    writer.process.start()
            for one in many:
                await eventually(lambda one=one: one.expected == one.shown, SETTLED, f"{one.expected}")  # type: ignore[misc]
            await drained(bus, durable)
            versions = [one.vmi.version for one in many]
            for one in many:
                await one.vmi.publish(Kind.INTERFACES, one.interfaces)
                await one.vmi.publish(Kind.GUESTOSINFO, one.system)
                await one.say_connected()
            info = await drained(bus, durable)
            last = (await bus.js.stream_info(bus.settings.stream)).state.last_seq
    finally:
        for writer in writers:
            writer.process.stop()

    assert kills > 2
    assert versions == [one.vmi.version for one in many]
    assert info.ack_floor is not None
    assert last == info.ack_floor.stream_seq
    seen = sights(tmp_path / "watch.json")
    for one in many:
        of_one = seen[one.vmi.ref.name]
        assert len({address for _, address, _ in of_one}) > 3
        assert sorted(address for _, address, _ in of_one) == [address for _, address, _ in of_one]
        assert sorted(version for _, _, version in of_one) == [version for _, _, version in of_one]
