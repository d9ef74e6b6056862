"""Exports of a real stream: everything once, run after run; other streams; what is present."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from guestwire import client
from guestwire.errors import ConfigError, GuestwireError
from guestwire.export import reading
from guestwire.export.exporter import Exporter
from guestwire.export.position import Position
from guestwire.jetstream import Bus
from guestwire.lifecycle import cancel
from guestwire.snapshot import Phase
from tests.conftest import Eventually
from tests.integration.export.conftest import STORES, Stream, ask, events, run

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def test_all_history_then_what_came(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """The first run brings every message the stream keeps, not only the last of each subject; the next what came."""
    export = tmp_path / "export"
    await stream.agent("a")
    for number in range(5):
        await stream.users("a", f"user{number}")
    first = await run(bus, form, export)
    await stream.users("a", "late")
    second = await run(bus, form, export)
    third = await run(bus, form, export)

    assert [6, 1, 0] == [first.messages, second.messages, third.messages]
    assert await stream.events() == events(export)


async def test_longer_than_the_stream_keeps(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """What the stream has forgotten stays in the export; what it forgot between two runs is counted."""
    export = tmp_path / "export"
    for number in range(70):
        await stream.users("a", f"user{number}")
    first = await run(bus, form, export)
    for number in range(70, 140):
        await stream.users("a", f"user{number}")
    second = await run(bus, form, export)

    assert [(64, 0), (64, 6)] == [(progress.messages, progress.missed) for progress in (first, second)]
    assert [*range(7, 71), *range(77, 141)] == [row[0] for row in events(export)]


async def test_stream_made_anew(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """Another stream of the name is another epoch, read from its first message; its guests alone are present."""
    export = tmp_path / "export"
    for name in ("a", "b"):
        await stream.agent(name)
        await stream.users(name, "before")
    await run(bus, form, export)
    await bus.js.delete_stream(bus.settings.stream)
    await bus.ensure_stream()
    for user in ("one", "two", "three", "four", "five"):
        await stream.users("a", user)
    await stream.agent("a")
    await run(bus, form, export)

    assert 4 == len(events(export, epoch=1))
    assert await stream.events() == events(export, epoch=2)
    assert [("a", "five")] == ask(export, "SELECT name, user_name FROM users_now")


async def test_stream_made_anew_while_followed(
    bus: Bus, stream: Stream, form: str, tmp_path: Path, eventually: Eventually
) -> None:
    """A sink that runs on notices as well."""
    export, stop = tmp_path / "export", asyncio.Event()
    await stream.agent("a")
    exporter = Exporter(bus, STORES[form](export), follow=True, every=0.1)
    running = asyncio.create_task(exporter.run(stop))
    try:
        await eventually(lambda: exporter.progress.messages == 1, within=60)
        await bus.js.delete_stream(bus.settings.stream)
        await bus.ensure_stream()
        await stream.agent("b")
        await stream.agent("b", Phase.PAUSED)
        await eventually(lambda: exporter.progress.messages == 3, within=60)
        stop.set()
        await running
    finally:
        await cancel(running)

    assert [(1, "a"), (2, "b"), (2, "b")] == ask(export, "SELECT epoch, name FROM events ORDER BY epoch, revision")


async def test_another_stream_is_refused(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """A stream older than the one that was exported is another server's: nothing is written, and it is said."""
    export = tmp_path / "export"
    await stream.agent("a")
    await run(bus, form, export)
    store, later = STORES[form](export), datetime(2999, 1, 1)  # noqa: DTZ001 - positions have no zone
    store.position()
    store.append(
        Position(bus.settings.stream, later, 2, 1),
        [message async for message in client.follow(bus, after=0, live=False)],
    )

    with pytest.raises(ConfigError, match=r"^nats\.servers: .*older than the one exported last"):
        await run(bus, form, export)


async def test_one_writer(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """A second export of the same path is refused in one line."""
    await stream.agent("a")
    store = STORES[form](tmp_path / "export")

    with store.locked(), pytest.raises(GuestwireError, match="another export writes to"):
        await run(bus, form, tmp_path / "export")


async def test_done_and_not_noticed(bus: Bus, stream: Stream, tmp_path: Path) -> None:
    """A batch that is in the DuckDB file already, because the answer to its commit was lost, is not put there again."""
    revision = await stream.agent("a")
    await run(bus, "duckdb", tmp_path / "export")
    store = STORES["duckdb"](tmp_path / "export")
    position = store.position()
    assert position is not None
    store.append(position, [message async for message in client.follow(bus, after=0, live=False)])

    assert [(revision,)] == ask(tmp_path / "export", "SELECT revision FROM events")


async def test_something_else_is_left_alone(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """A file or directory that holds other things is refused, and stays as it was."""
    export = tmp_path / "export"
    if form == "duckdb":
        with duckdb.connect(export) as db:
            db.execute("CREATE TABLE users (mine INTEGER)")
    else:
        export.mkdir()
        (export / "mine.tmp").write_text("mine")

    with pytest.raises(ConfigError, match="holds something else"):
        await run(bus, form, export)

    if form == "duckdb":
        with duckdb.connect(export) as db:
            assert [("users",)] == db.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    else:
        assert ["mine.tmp"] == [file.name for file in export.iterdir()]


async def test_readers_and_writer_take_turns(bus: Bus, stream: Stream, tmp_path: Path, eventually: Eventually) -> None:
    """A DuckDB file can be read while an export follows; while it is read the export waits, and then goes on."""
    export, stop = tmp_path / "export", asyncio.Event()
    await stream.agent("a")
    exporter = Exporter(bus, STORES["duckdb"](export), follow=True, every=0.1)
    running = asyncio.create_task(exporter.run(stop))
    try:
        await eventually(lambda: exporter.progress.messages == 1, within=60)
        arguments = [sys.executable, "-c", READER, str(export)]
        reader = await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=PIPE)
        assert reader.stdin is not None
        assert reader.stdout is not None
        seen = await reader.stdout.readline()
        await stream.agent("a", Phase.PAUSED)
        await asyncio.sleep(1)  # long enough for several attempts; none must get through, and none must be fatal
        waiting = (exporter.progress.messages, running.done())
        reader.stdin.close()
        await reader.wait()
        await eventually(lambda: exporter.progress.messages == 2, within=60)
        stop.set()
        await running
    finally:
        await cancel(running)

    assert b"1\n" == seen
    assert (1, False) == waiting
    assert [(2,)] == ask(export, "SELECT count(*) FROM events")


READER = """
import pathlib, sys, time
import duckdb
from guestwire.export import reading
for _ in range(600):
    try:
        db = reading.connect(pathlib.Path(sys.argv[1]))
        break
    except duckdb.IOException:
        time.sleep(0.1)
print(db.execute("SELECT count(*) FROM events").fetchall()[0][0], flush=True)
sys.stdin.read()
"""


async def test_present_state(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """Gone guests end; of a guest that returned, or was made anew, nothing counts that was said before."""
    export = tmp_path / "export"
    await stream.agent("here", ago=5 * HOUR)
    await stream.users("here", "alice", "bob", ago=4 * HOUR)
    await stream.users("here", "alice", ago=3 * HOUR)
    await stream.agent("gone")
    await stream.users("gone", "carol", ago=2 * HOUR)
    await stream.agent("gone", Phase.GONE, ago=HOUR)
    await stream.agent("back")
    await stream.users("back", "dave")
    await stream.agent("back", Phase.GONE)
    await stream.agent("back")
    await stream.agent("anew", uid="old")
    await stream.users("anew", "erin", uid="old")
    await stream.agent("anew", uid="new")
    await run(bus, form, export)

    assert [("anew", "new"), ("back", "u1"), ("here", "u1")] == ask(
        export, "SELECT name, uid FROM guests ORDER BY name"
    )
    assert [("here", "alice")] == ask(export, "SELECT name, user_name FROM users_now")
    now = stream.now.replace(tzinfo=None)
    assert [("alice", None), ("bob", now - 3 * HOUR), ("carol", now - HOUR)] == ask(
        export, "SELECT user_name, ended_at FROM sessions WHERE name IN ('here', 'gone') ORDER BY user_name"
    )


async def test_nothing_ends_an_export(bus: Bus, stream: Stream, form: str, tmp_path: Path) -> None:
    """Unknown kinds, bodies that are none, names and numbers that no table can hold: kept as far as they can be."""
    export = tmp_path / "export"
    huge = b"""{"items":[{"diskName":"d","mountPoint":"/","fileSystemType":"x","usedBytes":9223372036854775808,
        "totalBytes":18446744073709551615}],"metadata":{}}"""
    late = b'{"items":[{"userName":"u","loginTime":1e300}],"metadata":{}}'
    await stream.say("a", "weather", b'{"rain":true}')
    await stream.say("a", "userlist", b"\xff no JSON")
    await stream.say("\udcff \0 name.1", "filesystemlist", huge)
    await stream.say("a", "userlist", late)
    await run(bus, form, export)

    assert [(1, "weather"), (2, "userlist"), (3, "filesystemlist"), (4, "userlist")] == ask(
        export, "SELECT revision, kind FROM events ORDER BY revision"
    )
    assert [("\\udcff \0 name.1", None, None)] == ask(export, "SELECT name, used_bytes, total_bytes FROM filesystems")
    assert [("u", None)] == ask(export, "SELECT user_name, login_time FROM users")


async def test_parquet_by_day(bus: Bus, stream: Stream, tmp_path: Path) -> None:
    """A directory a day; a reading that came late lies with those it came with, and every row is there once."""
    export = tmp_path / "export"
    for ago in (3 * DAY, 2 * DAY, 3 * DAY, DAY, -400 * DAY):
        await stream.filesystem("a", 1, 2, ago=ago)
    await run(bus, "parquet", export)
    days = [f"{stream.now - ago:date=%Y-%m-%d}" for ago in (3 * DAY, 2 * DAY, DAY, 0 * DAY)]

    assert days == sorted(file.name for file in (export / "events").iterdir())
    assert days == sorted(file.name for file in (export / "filesystems").iterdir())
    assert [(1,), (2,), (3,), (4,), (5,)] == ask(export, "SELECT revision FROM filesystems ORDER BY revision")


async def test_parquet_present_state_in_files(bus: Bus, stream: Stream, tmp_path: Path) -> None:
    """After a run the files under now/ hold what the views say, and views.sql makes those in DuckDB."""
    export = tmp_path / "export"
    await stream.agent("a")
    await stream.users("a", "alice")
    await stream.users("a", "bob")
    await run(bus, "parquet", export)
    with duckdb.connect() as db:
        files = db.execute("SELECT user_name FROM read_parquet(?)", [f"{export}/now/users.parquet"]).fetchall()

    assert [("bob",)] == files
    assert reading.sql(Path()) == (export / "views.sql").read_text()
    assert {"guests", "users", "filesystems", "interfaces", "addresses"} == {
        file.stem for file in (export / "now").iterdir()
    }
