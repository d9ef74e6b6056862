"""The command, killed at random while it keeps an export fresh: nothing missing, nothing doubled."""

from __future__ import annotations

import asyncio
import os
import pty
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from nats.js.api import StreamConfig

from guestwire.errors import ConfigError
from guestwire.export import reading
from guestwire.jetstream import Bus, stream_config
from guestwire.lifecycle import cancel
from guestwire.settings import Nats
from guestwire.snapshot import Phase
from lab.nats_server import NatsServer
from lab.process import Daemon
from tests.integration.export.conftest import Stream, ask, events, run

GUESTWIRE = str(Path(sys.executable).with_name("guestwire"))
KILLS = int(os.environ.get("EXPORT_KILLS", "8"))


def environment(bus: Bus) -> dict[str, str]:
    """Settings of the command."""
    return {"PATH": os.environ["PATH"], "GUESTWIRE_NATS__SERVERS": bus.settings.servers[0]}


async def keep_all(bus: Bus) -> None:
    """A stream that forgets nothing, to compare with."""
    config: StreamConfig = stream_config(bus.settings)
    config.max_msgs_per_subject = -1
    await bus.js.update_stream(config)


async def talk(stream: Stream) -> None:
    """Say something about one of many guests, for ever."""
    for number in range(1_000_000):
        await stream.users(f"vm{number % 50}", "alice", f"user{number}")
        if number % 10 == 0:
            await stream.filesystem(f"vm{number % 50}", number, 10**6)
        await asyncio.sleep(0.002)


def revisions(export: Path, table: str) -> list[int]:
    """Of the rows of a table, in order; none while nothing was exported."""
    try:
        with reading.connect(export) as db:
            rows = db.execute(f"SELECT revision FROM {table} ORDER BY revision").fetchall()  # noqa: S608
    except ConfigError:
        return []
    return [row[0] for row in rows]


@pytest.mark.timeout(60 * KILLS)
async def test_killed_at_random(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """
    After each kill a reader finds the stream's beginning, every message once; in the end an export that is
    let finish equals the stream.
    """
    export, chance = tmp_path / "export", random.Random()
    await keep_all(bus)
    talking = asyncio.create_task(talk(stream))
    command = [GUESTWIRE, "export", "--to", form, "--follow", "--every", "0.1", str(export)]
    daemon = Daemon(command, log=tmp_path / "log", env=environment(bus))
    grown = []
    try:
        for _ in range(KILLS):
            before = len(await asyncio.to_thread(revisions, export, "events"))
            daemon.start()
            await _until_grown(export, before)
            await asyncio.sleep(chance.uniform(0, 0.5))
            alive = daemon.alive
            await asyncio.to_thread(daemon.kill)
            found = await asyncio.to_thread(revisions, export, "events")
            users = await asyncio.to_thread(revisions, export, "users")

            assert alive, (tmp_path / "log").read_text()
            assert [*range(1, len(found) + 1)] == found
            assert len(users) == 2 * len(set(users))
            grown.append(len(found))
    finally:
        await asyncio.to_thread(daemon.stop)
        await cancel(talking)
    await run(bus, form, export)

    assert sorted(grown) == grown
    assert grown[-1] > grown[0]
    assert await stream.events() == events(export)
    assert [(0,)] == ask(
        export,
        """
        SELECT count(*) FROM (SELECT revision FROM events WHERE kind = 'userlist')
        FULL JOIN (SELECT revision, count(*) AS entries FROM users GROUP BY revision) USING (revision)
        WHERE entries IS DISTINCT FROM 2
        """,
    )


async def _until_grown(export: Path, before: int) -> None:
    """Something was stored since. Looked at seldom, as a reader of a DuckDB file holds the writer up."""
    deadline = time.monotonic() + 60
    while len(await asyncio.to_thread(revisions_if_free, export)) <= before:
        assert time.monotonic() < deadline, f"nothing came after {before} messages"
        await asyncio.sleep(0.5)


async def test_stopped_properly(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """SIGTERM ends a sink with status 0 at once, however seldom it writes; the next run has the rest."""
    export = tmp_path / "export"
    await stream.agent("a")
    command = [GUESTWIRE, "export", "--to", form, "--follow", "--every", "3600", str(export)]
    daemon = Daemon(command, log=tmp_path / "log", env=environment(bus))
    daemon.start()
    try:
        deadline = time.monotonic() + 60
        while [1] != await asyncio.to_thread(revisions_if_free, export):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            await asyncio.sleep(1)  # seldom, as a reader of a DuckDB file holds the writer up
        await stream.agent("a", Phase.PAUSED)
    finally:
        await asyncio.to_thread(daemon.stop, 60)
    await run(bus, form, export)

    assert 0 == daemon.wait(0), (tmp_path / "log").read_text()
    assert await stream.events() == events(export)


def revisions_if_free(export: Path) -> list[int]:
    """Of the events; none while the file is being written."""
    try:
        return revisions(export, "events")
    except duckdb.Error:
        return []


def test_progress_on_a_terminal(nats_server: NatsServer, tmp_path: Path) -> None:
    """On a terminal the share that is done is shown while it goes on; elsewhere there is only the last line."""
    leader, follower = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "GUESTWIRE_NATS__SERVERS": nats_server.url}
    asyncio.run(_say_something(nats_server.url))
    commands = ([GUESTWIRE, "export", "--to", "parquet", str(tmp_path / name)] for name in ("a", "b"))
    subprocess.run(next(commands), env=environment, stderr=follower, timeout=60, check=True)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    os.close(follower)
    piped = subprocess.run(next(commands), env=environment, capture_output=True, text=True, timeout=60, check=True)

    assert "1 messages, revision 1 of 1 (100%)" in shown
    assert re.search(r"^1 messages up to revision 1 in \d+\.\d s$", piped.stderr, flags=re.MULTILINE)
    assert "(100%)" not in piped.stderr


async def _say_something(server: str) -> None:
    async with Bus(Nats(servers=(server,)), "test") as bus:
        await bus.ensure_stream()
        await Stream(bus).agent("a")


def test_without_the_extra(tmp_path: Path) -> None:
    """Where duckdb is not installed, one line says what to install, and the package itself can be imported."""
    code = """
import sys
sys.modules["duckdb"] = sys.modules["pyarrow"] = None
import guestwire, guestwire.export, guestwire.client
from guestwire.cli import main
sys.argv = ["guestwire", "export", "--to", "duckdb", "x.duckdb"]
main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )

    assert (2, "guestwire: duckdb is not installed: pip install 'guestwire[export]'\n") == (
        ended.returncode,
        ended.stderr,
    )
