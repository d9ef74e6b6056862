"""A real API server, a real NATS server, and the real process between them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guestwire.codec import event_headers, new_trace_id, part
from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import (
    AgentState,
    Body,
    DomainInterface,
    GuestInterface,
    GuestRef,
    Interfaces,
    IPAddress,
    Kind,
    Phase,
)
from guestwire.subjects import subject
from lab.kube_apiserver import KubeApiserver
from lab.kube_build import KubeBinaries
from lab.nats_server import NatsServer
from lab.process import Daemon, free_port
from status_writer import support

CLUSTER = "local"
GRACE = 2.0
COMMANDS = tuple(support.BASIC)

_numbers = count(1)


def new_number() -> int:
    """For names that are used once."""
    return next(_numbers)


@pytest.fixture(scope="session")
def kube(kube_binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiserver]:
    """An API server with KubeVirt's definition of a VMI."""
    with KubeApiserver(kube_binaries, tmp_path_factory.mktemp("kube")) as server:
        server.install_crd()
        yield server


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server with JetStream."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """The test's own connection, with the stream there."""
    async with Bus(Nats(servers=(nats_server.url,)), "test") as connection:
        await connection.ensure_stream()
        yield connection


class Writer:
    """The process `guestwire write-status`."""

    def __init__(self, kube: KubeApiserver, nats_server: NatsServer, directory: Path, **settings: object) -> None:
        self.port = free_port()
        given: dict[str, object] = {
            "NATS__SERVERS": nats_server.url,
            "STATUS__KUBECONFIG": kube.kubeconfig,
            "STATUS__HEALTH": f"127.0.0.1:{self.port}",
            "STATUS__GRACE": GRACE,
            "STATUS__MIN_INTERVAL": 0.1,
            "STATUS__DURABLE": f"status-{new_number()}",
            "LOG__LEVEL": "debug",
            **settings,
        }
        environment = {**os.environ, **{f"GUESTWIRE_{name}": str(value) for name, value in given.items()}}
        self.durable = str(given["STATUS__DURABLE"])
        self.log = directory / f"{self.durable}.log"
        program = Path(sys.executable).with_name("guestwire")
        self.process = Daemon([program, "write-status"], log=self.log, env=environment)

    def get(self, path: str) -> tuple[int, str]:
        """Answer of the health server; 0 when there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    @property
    def ready(self) -> bool:
        """Whether everything it needs is there."""
        return self.get("/readyz")[0] == 200

    def metric(self, name: str) -> float:
        """A sample of `/metrics`; 0 when it is not there."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith((f"{name} ", f"{name}{{")) and line.split()[0] == name:
                return float(line.split()[1])
        return 0.0

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log."""
        lines = self.log.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if event in (None, record["event"])]


@pytest.fixture(scope="session")
def writer(kube: KubeApiserver, nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    """One process for all tests that leave it alone."""

    async def with_stream() -> None:
        async with Bus(Nats(servers=(nats_server.url,)), "test") as connection:
            await connection.ensure_stream()

    asyncio.run(with_stream())
    one = Writer(kube, nats_server, tmp_path_factory.mktemp("writer"))
    with one.process:
        one.process.ready(lambda: one.ready, 60)
        yield one


@dataclass
class Guest:
    """A guest on the bus."""

    bus: Bus
    ref: GuestRef
    uid: str = ""
    cluster: str = CLUSTER

    async def publish(self, kind: Kind, body: Body, *, observed: datetime | None = None) -> None:
        """A message as a collector sends it."""
        made = part(kind, body, observed or datetime.now(UTC))
        headers = event_headers(
            ref=self.ref,
            uid=body.uid if isinstance(body, AgentState) else self.uid,
            cluster=self.cluster,
            host="host",
            part=made,
            message_id=new_trace_id(),
            trace_id=new_trace_id(),
        )
        await self.bus.js.publish(subject(self.cluster, self.ref, kind), made.body, headers=headers)

    def agent(self, **changes: Any) -> AgentState:
        """Its state record: connected since now."""
        state = AgentState(
            namespace=self.ref.namespace,
            name=self.ref.name,
            uid=self.uid,
            domain=f"{self.ref.namespace}_{self.ref.name}",
            domain_uuid="d1c1d1c1-0000-4000-8000-000000000000",
            host="host",
            phase=Phase.RUNNING,
            channel=True,
            connected=True,
            since=datetime.now(UTC),
            responsive=True,
            commands=COMMANDS,
        )
        return msgspec.structs.replace(state, **changes)


class Vmi(Guest):
    """A VMI on the API server, and the guest behind it on the bus."""

    def __init__(self, kube: KubeApiserver, bus: Bus, ref: GuestRef, cluster: str = CLUSTER) -> None:
        super().__init__(bus, ref, cluster=cluster)
        self.kube = kube

    def create(self, spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> Vmi:
        """Create it, Running unless told otherwise."""
        manifest = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"namespace": self.ref.namespace, "name": self.ref.name},
            "spec": spec or {},
            "status": {"phase": "Running"} if status is None else status,
        }
        made = json.loads(self.kube.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(manifest)))
        self.uid = made["metadata"]["uid"]
        return self

    def delete(self) -> None:
        """Delete it."""
        self.kube.kubectl("delete", "vmi", self.ref.name, "-n", self.ref.namespace)

    def get(self) -> dict[str, Any]:
        """The object as it is."""
        text = self.kube.kubectl("get", "vmi", self.ref.name, "-n", self.ref.namespace, "-o", "json")
        document: dict[str, Any] = json.loads(text)
        return document

    @property
    def status(self) -> dict[str, Any]:
        """Its status."""
        status: dict[str, Any] = self.get().get("status", {})
        return status

    @property
    def version(self) -> str:
        """Its resourceVersion: moves with every write."""
        return str(self.get()["metadata"]["resourceVersion"])

    def condition(self, kind: str) -> dict[str, Any] | None:
        """A condition of its status."""
        return next((each for each in self.status.get("conditions", []) if each["type"] == kind), None)

    def merge_patch(self, patch: dict[str, Any]) -> None:
        """Write it as somebody else would."""
        self.kube.kubectl(
            "patch", "vmi", self.ref.name, "-n", self.ref.namespace, "--type=merge", "-p", json.dumps(patch)
        )


def at(number: int) -> Interfaces:
    """A guest whose only address stands for a number."""
    nic = DomainInterface("default", "52:54:00:00:00:01", 1, "up")
    return Interfaces((nic,), (GuestInterface("eth0", nic.mac, (IPAddress(_address(number), 24),)),))


def shows(vmi: Vmi, number: int) -> bool:
    """Whether the status shows that address."""
    return any(each.get("ipAddress") == _address(number) for each in vmi.status.get("interfaces", []))


def _address(number: int) -> str:
    return f"10.0.{number // 250}.{number % 250 + 1}"


async def quiet(vmi: Vmi, seconds: float = 1.0) -> str:
    """The resourceVersion once nobody has written for a while."""
    version = vmi.version
    while True:
        await asyncio.sleep(seconds)
        before, version = version, await asyncio.to_thread(lambda: vmi.version)
        if before == version:
            return version


@pytest.fixture
def cluster() -> str:
    """A name of the test's own on the bus: no other writer that watches the same API server knows these guests."""
    return f"cluster-{new_number()}"


@pytest.fixture
def vmi(kube: KubeApiserver, bus: Bus) -> Vmi:
    """A VMI of the test's own, not created yet."""
    return Vmi(kube, bus, GuestRef("default", f"vm-{new_number()}"))


async def eventually(condition: Callable[[], object], within: float = 20.0, what: str = "") -> float:
    """Wait until a condition holds; the seconds it took."""
    started = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - started < within, what or "it did not happen"
        await asyncio.sleep(0.05)
    return time.monotonic() - started
