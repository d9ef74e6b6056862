"""A stream with something on it, and what an export of it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from guestwire import client, codec
from guestwire.export import reading
from guestwire.export.duckdb_store import DuckDBStore
from guestwire.export.exporter import Exporter, Progress, Store
from guestwire.export.parquet_store import ParquetStore
from guestwire.jetstream import Bus
from guestwire.snapshot import (
    AgentState,
    Body,
    Filesystem,
    FilesystemList,
    GuestRef,
    Kind,
    ListMeta,
    Part,
    Phase,
    User,
    UserList,
)
from guestwire.subjects import subject

Event = tuple[int, str, str, str, str]
"""Revision, namespace, name, kind and body."""

STORES: dict[str, Callable[[Path], Store]] = {"duckdb": DuckDBStore, "parquet": ParquetStore}


@pytest.fixture(params=STORES)
def form(request: pytest.FixtureRequest) -> str:
    """Each form that an export may have."""
    return str(request.param)


class Stream:
    """Says things about guests, as a collector would."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.now = codec.now().replace(microsecond=0)

    async def say(
        self, name: str, kind: str, body: Body | bytes, *, uid: str = "u1", ago: timedelta = timedelta()
    ) -> int:
        """Publish one message; its revision."""
        ref = GuestRef("ns", name)
        at = self.now - ago
        encoded = body if isinstance(body, bytes) else codec.encode(body)
        part = Part(kind, encoded, "", at)
        headers = codec.event_headers(
            ref=GuestRef("ns", ascii(name)),
            uid=uid,
            cluster="c",
            host="h",
            part=part,
            message_id=codec.new_trace_id(),
            trace_id=codec.new_trace_id(),
        )
        acknowledged = await self.bus.js.publish(subject("c", ref, kind), encoded, headers=headers)
        return acknowledged.seq

    async def agent(
        self, name: str, phase: Phase = Phase.RUNNING, *, uid: str = "u1", ago: timedelta = timedelta()
    ) -> int:
        """An agent record."""
        at: datetime = self.now - ago
        state = AgentState(
            "ns", name, uid, f"ns_{name}", uid, "h", phase, channel=True, connected=True, since=at, version="7.2.19"
        )
        return await self.say(name, Kind.AGENT, state, uid=uid, ago=ago)

    async def users(self, name: str, *names: str, uid: str = "u1", ago: timedelta = timedelta()) -> int:
        """Who is logged in."""
        listed = tuple(User(user, login_time=1_700_000_000.5) for user in names)
        return await self.say(name, Kind.USERLIST, UserList(listed, ListMeta()), uid=uid, ago=ago)

    async def filesystem(self, name: str, used: int, total: int, *, ago: timedelta = timedelta()) -> int:
        """How full `/` is."""
        found = (Filesystem("vda1", "/", "ext4", used, total),)
        return await self.say(name, Kind.FILESYSTEMLIST, FilesystemList(found, ListMeta()), ago=ago)

    async def events(self) -> list[Event]:
        """All that the stream holds, history too."""
        return [
            (message.revision, message.address.ref.namespace, message.address.ref.name, message.address.kind,
             message.body.decode())
            async for message in client.follow(self.bus, after=0, live=False)
        ]  # fmt: skip


@pytest.fixture
def stream(bus: Bus) -> Stream:
    """The stream of the test's own server."""
    return Stream(bus)


async def run(bus: Bus, form: str, path: Path) -> Progress:
    """One run that ends by itself."""
    exporter = Exporter(bus, STORES[form](path))
    await exporter.run(asyncio.Event())
    return exporter.progress


def ask(path: Path, query: str) -> list[tuple[object, ...]]:
    """An export's answer."""
    with reading.connect(path) as db:
        return db.execute(query).fetchall()


def events(path: Path, epoch: int = 1) -> list[tuple[object, ...]]:
    """All that an export holds of an epoch."""
    columns = "revision, namespace, name, kind, body"
    return ask(path, f"SELECT {columns} FROM events WHERE epoch = {epoch} ORDER BY revision")  # noqa: S608
