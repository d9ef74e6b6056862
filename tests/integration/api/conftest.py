"""
The read API over a socket: with a real NATS server behind it, or alone with a cache that a test fills.

Requests are written by hand, byte by byte: what matters here is what is on the wire.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.types import Receive, Scope, Send

from api.app import Api, Limits
from api.cache import Cache
from api.groups import KUBEVIRT
from api.hosts import Hosts
from api.metrics import Metrics
from api.server import Server, config, listen, main
from guestwire import codec, settings, subjects
from guestwire.errors import NotConnected
from guestwire.jetstream import Bus, Message
from guestwire.settings import Settings
from guestwire.snapshot import AgentState, Body, GuestRef, Kind, ListMeta, Phase, User, UserList
from guestwire.subjects import Address
from lab.nats_server import NatsServer
from lab.process import free_port
from tests.integration.api.aggregated import cluster

__all__ = ["cluster"]

VM = GuestRef("default", "vm1")
USERLIST = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm1/userlist"


class Reply(msgspec.Struct):
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The value of a header; empty when it is not there."""
        return dict(self.headers).get(name, "")

    @property
    def timeless(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Without Date and Age, which differ from one moment to the next."""
        return self.status, [each for each in self.headers if each[0] not in {"date", "age"}], self.body

    @property
    def message(self) -> str:
        """The message of a Status."""
        return str(msgspec.json.decode(self.body)["message"])

    @property
    def refusal(self) -> tuple[int, str]:
        """Code and reason of an error: a Status that is whole, and agrees with the first line of the answer."""
        told = msgspec.json.decode(self.body)

        assert ("Status", "v1", "Failure", "application/json") == (
            told["kind"], told["apiVersion"], told["status"], self["content-type"],
        )  # fmt: skip
        assert (self.status, True) == (told["code"], bool(told["message"]))
        return self.status, str(told["reason"])


class Connection:
    """A connection to the API that is used by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *lines: str, body: bytes = b"") -> None:
        """A request: its first line, its headers, its body."""
        self.writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode() + body)

    async def reply(self, *, to_head: bool = False) -> Reply:
        """The next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in head[1:-1])]
        reply = Reply(int(head[0].split()[1]), headers, b"")
        if not to_head and reply.status != 304:
            reply.body = await self.reader.readexactly(int(reply["content-length"]))
        return reply

    async def closed(self) -> bool:
        """Whether the server closes the connection, and says nothing more."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


class Site:
    """An API that listens somewhere."""

    def __init__(self, port: int) -> None:
        self.port = port

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """A connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    @asynccontextmanager
    async def connected_patiently(self) -> AsyncIterator[Connection]:
        """A connection, as soon as somebody listens."""

        async def there() -> bool:
            with suppress(ConnectionRefusedError):
                async with self.connected():
                    return True
            return False

        await eventually(there, f"listening on port {self.port}")
        async with self.connected() as connection:
            yield connection

    async def applied(self, revision: int) -> None:
        """Wait until the API has taken in this revision."""

        async def there() -> bool:
            return await self.metric("guestwire_api_cache_revision") == revision

        await eventually(there, f"revision {revision} in the cache")

    async def get(self, path: str = USERLIST, *headers: str, method: str = "GET", body: bytes = b"") -> Reply:
        """One request on a connection of its own."""
        async with self.connected() as connection:
            connection.send(f"{method} {path} HTTP/1.1", "Host: localhost", *headers, body=body)
            return await connection.reply(to_head=method == "HEAD")

    async def metric(self, name: str) -> float:
        """The value of a metric, with its labels as they are written; 0 when it is not there."""
        for line in (await self.get("/metrics")).body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, timeout: float = 20) -> None:  # noqa: ASYNC109
    """Wait for it, looking every 50 ms."""
    try:
        async with asyncio.timeout(timeout):
            while not await condition():  # noqa: ASYNC110 - what changes is behind a socket
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{what}: not within {timeout:g} s")


def agent_state(ref: GuestRef, uid: str, **facts: Any) -> AgentState:
    """Of a running guest with a connected agent, but for what `facts` say."""
    usual: dict[str, Any] = {"host": "h", "phase": Phase.RUNNING, "channel": True, "connected": True}
    usual["since"] = codec.now()
    return AgentState(namespace=ref.namespace, name=ref.name, uid=uid, domain="d", domain_uuid=uid, **(usual | facts))


def users(*names: str) -> UserList:
    """A user list."""
    return UserList(tuple(User(name) for name in names), ListMeta())


class Alone(Site):
    """The server and a cache, without NATS; says whether the application was asked."""

    def __init__(self, port: int, api: CountingApi) -> None:
        super().__init__(port)
        self.api = api
        self.cache = api.cache

    @property
    def asked(self) -> int:
        """Requests that reached the application."""
        return self.api.asked

    def agent(self, *, ref: GuestRef = VM, uid: str = "u1", at: datetime | None = None, **facts: Any) -> int:
        """Say something about a guest's agent."""
        return self._say(ref, Kind.AGENT, agent_state(ref, uid, **facts), uid, at)

    def userlist(self, *names: str, ref: GuestRef = VM, uid: str = "u1", at: datetime | None = None) -> int:
        """Say who is logged in."""
        return self._say(ref, Kind.USERLIST, users(*names), uid, at)

    def _say(self, ref: GuestRef, kind: str, body: Body, uid: str, at: datetime | None) -> int:
        """Apply a message as if it had come from the stream, about a guest that was asked about; its revision."""
        event = codec.Event(id="1", source="/guestwire/local/h", uid=uid, time=at or codec.now(), trace_id="")
        revision = self.cache.revision + 1
        self.cache.apply(Message(Address("local", ref, kind), revision, event, codec.encode(body), {}))
        self.cache.find(KUBEVIRT, ref, Kind.USERLIST)
        return revision


class CountingApi(Api):
    """The application, counting what it is asked."""

    asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await super().__call__(scope, receive, send)


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Alone]:
    """The real server on a free port, with a cache that has caught up with nothing."""
    cache = Cache()
    cache.begin()
    cache.complete()
    api = CountingApi(cache, Metrics(cache, connected=lambda: False, skipped=lambda: 0), limits, hosts=Hosts())
    server = Server(config(api, grace=5))
    listening = listen(settings.Api(listen="127.0.0.1:0"))
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield Alone(listening.getsockname()[1], api)
    finally:
        server.should_exit = True
        await task


@pytest.fixture(name="serving")
def _serving() -> Any:
    """The server with limits of one's own."""
    return serving


@pytest.fixture
async def alone() -> AsyncIterator[Alone]:
    """A server whose cache holds default/vm1 with one user."""
    async with serving(Limits(head=1, idle=2, reading=1, head_bytes=16384, connections=8)) as site:
        site.agent()
        site.userlist("root")
        yield site


class World(Site):
    """The API as it is run, with NATS behind it; `bus` is a collector's connection."""

    def __init__(self, nats: NatsServer, bus: Bus, port: int) -> None:
        super().__init__(port)
        self.nats = nats
        self.bus = bus

    async def agent(self, *, ref: GuestRef = VM, uid: str = "u1", **facts: Any) -> int:
        """Publish something about a guest's agent; the revision."""
        return await self._publish(ref, Kind.AGENT, agent_state(ref, uid, **facts), uid, None)

    async def userlist(self, *names: str, ref: GuestRef = VM, uid: str = "u1", at: datetime | None = None) -> int:
        """Publish who is logged in; the revision."""
        return await self._publish(ref, Kind.USERLIST, users(*names), uid, at)

    async def _publish(self, ref: GuestRef, kind: str, body: Body, uid: str, at: datetime | None) -> int:
        """Publish as a collector does; the revision."""
        part = codec.part(kind, body, at or codec.now())
        headers = codec.event_headers(
            ref=ref,
            uid=uid,
            cluster="local",
            host="h",
            part=part,
            message_id=codec.new_trace_id(),
            trace_id=codec.new_trace_id(),
        )
        ack = await self.bus.js.publish(subjects.subject("local", ref, kind), part.body, headers=headers)
        return int(ack.seq)

    async def reconnected(self) -> None:
        """Wait until the collector's connection is up again, and JetStream serves it."""

        async def there() -> bool:
            with suppress(NotConnected):
                await self.bus.ensure_stream()
                return True
            return False

        await eventually(there, "connected to NATS again")

    async def eventually(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait for something."""
        await eventually(condition, what)


def api_settings(nats: NatsServer, port: int) -> Settings:
    """Settings of an API on a port, behind that server."""
    return Settings(nats=settings.Nats(servers=(nats.url,), timeout=1), api=settings.Api(listen=f"127.0.0.1:{port}"))


Start = Callable[..., Awaitable[World]]


@pytest.fixture
async def started(nats_server: NatsServer) -> AsyncIterator[Start]:
    """Starts the API's own `main`, and a collector's connection unless told not to `connect`."""
    stop = asyncio.Event()
    bus = Bus(settings.Nats(servers=(nats_server.url,)), "collector")
    tasks: list[asyncio.Task[None]] = []

    async def start(*, connect: bool = True) -> World:
        if connect:
            await bus.open(stop)
        port = free_port()
        tasks.append(asyncio.create_task(main(api_settings(nats_server, port), stop)))
        world = World(nats_server, bus, port)
        async with world.connected_patiently():
            return world

    yield start
    stop.set()
    await asyncio.gather(*tasks)
    await bus.close()


@pytest.fixture
async def world(started: Start) -> World:
    """The API over an empty stream, caught up."""
    world = await started()
    await world.bus.ensure_stream()

    async def ready() -> bool:
        return (await world.get("/readyz")).status == 200

    await eventually(ready, "ready")
    return world


@pytest.fixture
def site() -> Site:
    """A free port, for an API in a process of its own."""
    return Site(free_port())


@pytest.fixture
def kubevirt_cases() -> list[dict[str, Any]]:
    """KubeVirt's own cases of the REST paths, where they are at hand."""
    directory = Path(__file__).parents[4] / "shared" / "conformance" / "kubevirt"
    cases = [json.loads(file.read_text()) for file in sorted(directory.glob("rest-*.json"))]
    if not cases:
        pytest.skip(f"no KubeVirt cases in {directory}")
    return cases
