"""An export that stays, as a service: its pages, its metrics, and which guests it is for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guestwire import codec, subjects
from guestwire.errors import ConfigError
from guestwire.export.exporter import Exporter, Progress
from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import GuestRef, Kind, ListMeta, User, UserList
from lab.nats_server import NatsServer
from tests.conftest import Eventually
from tests.integration.export.conftest import STORES, Stream, ask
from tests.stage import Stage

pytestmark = pytest.mark.lab


def service(nats: NatsServer, form: str, path: Path) -> Stage:
    """`guestwire export --follow`."""
    words = ("export", "--to", form, path, "--follow", "--every", "0.2")
    return Stage(*words, listens="EXPORT__HEALTH", NATS__SERVERS=nats.url, NATS__TIMEOUT=2)


def nats_settings(server: NatsServer) -> Nats:
    """Of who publishes."""
    return Nats(servers=(server.url,), timeout=2)


@contextmanager
def opened(path: Path) -> Iterator[None]:
    """By another program, which reads it."""
    code = "import duckdb, sys; db = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); input()"
    while True:  # it cannot be opened while it is written
        reader = subprocess.Popen(
            [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if reader.stdout and reader.stdout.readline():
            break
        reader.communicate()
    try:
        yield
    finally:
        reader.communicate()


async def say(bus: Bus, cluster: str, namespace: str) -> None:
    """Who is logged in on a guest."""
    ref, users = GuestRef(namespace, "vm"), UserList((User("alice"),), ListMeta())
    part = codec.part(Kind.USERLIST, users, codec.now())
    headers = codec.event_headers(
        ref=ref,
        uid="u",
        cluster=cluster,
        host="h",
        part=part,
        message_id=codec.new_trace_id(),
        trace_id=codec.new_trace_id(),
    )
    await bus.js.publish(subjects.subject(cluster, ref, Kind.USERLIST), part.body, headers=headers)


@pytest.fixture
def services() -> Iterator[list[Stage]]:
    """Those that a test started; they end with it."""
    started: list[Stage] = []
    yield started
    for each in started:
        each.process.kill()
        each.process.wait()


async def test_pages(
    nats_server: NatsServer, form: str, tmp_path: Path, services: list[Stage], eventually: Eventually
) -> None:
    """Alive from the start; ready when the stream is there; counts what it wrote; ends by itself."""
    nats_server.stop()
    one = service(nats_server, form, tmp_path / "export")
    services.append(one)
    await eventually(lambda: one.get("/healthz")[0] == 200, within=60)
    assert (503, "not ready: not connected to NATS, not writing what comes\n") == one.get("/readyz")
    nats_server.start()
    async with Bus(nats_settings(nats_server), "test") as bus:
        await bus.ensure_stream()
        await eventually(lambda: one.get("/readyz")[0] == 200, within=60)
        stream, began = Stream(bus), time.time()
        await stream.agent("a")
        await stream.users("a", "alice", "bob")
        await eventually(lambda: one.metric("guestwire_export_messages_total") == 2, within=60)
        await eventually(lambda: one.metric("guestwire_export_lag_messages") == 0, within=60)
    assert 5 == one.metric("guestwire_export_rows_total")  # two events, an agent, two users
    assert 0 == one.metric("guestwire_export_missed_total")
    assert began - 1 <= one.metric("guestwire_export_last_commit_timestamp_seconds") <= time.time()

    assert 0 == (await asyncio.to_thread(one.end))[0]


async def test_held_up(
    bus: Bus, nats_server: NatsServer, stream: Stream, tmp_path: Path, services: list[Stage], eventually: Eventually
) -> None:
    """While somebody has its file open it is not ready and falls behind, and then catches up."""
    path = tmp_path / "guests.duckdb"
    one = service(nats_server, "duckdb", path)
    services.append(one)
    await stream.agent("a")
    await eventually(lambda: one.metric("guestwire_export_messages_total") == 1, within=60)
    with opened(path):
        for _ in range(3):
            await stream.agent("a")
        await eventually(lambda: one.get("/readyz") == (503, "not ready: not writing what comes\n"), within=60)
        assert 3 == one.metric("guestwire_export_lag_messages")
    await eventually(lambda: one.get("/readyz")[0] == 200, within=60)
    await eventually(lambda: one.metric("guestwire_export_lag_messages") == 0, within=60)

    assert [(4,)] == ask(path, "SELECT count(*) FROM events")


async def test_some_guests(bus: Bus, form: str, tmp_path: Path) -> None:
    """Of a cluster and a namespace; what is others' is no loss, and the export goes on with the same only."""
    for cluster, namespace in (("c", "prod"), ("c", "test"), ("d", "prod"), ("c", "prod")):
        await say(bus, cluster, namespace)

    async def run(pattern: str) -> Progress:
        exporter = Exporter(bus, STORES[form](tmp_path / "export"), pattern=pattern)
        await exporter.run(asyncio.Event())
        return exporter.progress

    wanted = subjects.pattern(cluster="c", namespace="prod")
    first = await run(wanted)
    for cluster, namespace in (("d", "test"), ("c", "prod")):
        await say(bus, cluster, namespace)
    second = await run(wanted)
    with pytest.raises(ConfigError, match="this export is of the stream GUESTWIRE guestwire"):
        await run(subjects.STREAM_SUBJECT)

    assert [(2, 0), (1, 0)] == [(each.messages, each.missed) for each in (first, second)]
    query = "SELECT revision, cluster, namespace FROM events ORDER BY revision"
    assert [(1, "c", "prod"), (4, "c", "prod"), (6, "c", "prod")] == ask(tmp_path / "export", query)
