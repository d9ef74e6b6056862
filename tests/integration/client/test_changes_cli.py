"""`watch`, `history` and `diff` as people and programs meet them, against a real nats-server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guestwire.jetstream import Bus
from guestwire.settings import Nats
from guestwire.snapshot import Filesystem, FilesystemList, Kind, ListMeta, Phase
from lab.nats_server import NatsServer
from lab.process import free_port
from tests.integration.client.conftest import Collector, users

GUESTWIRE = Path(sys.executable).with_name("guestwire")


class Shell:
    """Runs commands that read a NATS server."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self, *arguments: str, status: int = 0) -> str:
        """What a command prints, standard error behind standard output."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
        settings = {"GUESTWIRE_NATS__SERVERS": self._url, "GUESTWIRE_CLUSTER": "c", "GUESTWIRE_LOG__LEVEL": "error"}
        process = await asyncio.create_subprocess_exec(
            GUESTWIRE, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**plain, **settings, "TZ": "UTC"},
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert status == process.returncode, errors.decode()
        return output.decode() + errors.decode()

    async def objects(self, *arguments: str) -> list[Any]:
        """The lines of -o json, decoded."""
        return [msgspec.json.decode(line) for line in (await self(*arguments, "-o", "json")).splitlines()]


@pytest.fixture
def shell(nats_server: NatsServer) -> Shell:
    """Where commands are typed."""
    return Shell(nats_server.url)


def logged_in(users: Any) -> list[str]:
    """The names in a list of users."""
    return [user["userName"] for user in users.get("items", [])]


def filesystems(used: int) -> FilesystemList:
    """One filesystem, that full."""
    return FilesystemList((Filesystem("vda1", "/", "ext4", used, 100),), ListMeta())


@pytest.fixture
async def story(bus: Bus) -> datetime:
    """Six messages about two guests; the time before the last three."""
    collector = Collector(bus)
    await collector.agent("prod/db1")
    await collector.users("prod/db1", "alice")
    await collector.say("prod/db1", Kind.FILESYSTEMLIST, filesystems(10))
    await asyncio.sleep(0.05)
    moment = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await collector.users("prod/db1", "bob")
    await collector.say("prod/db1", Kind.FILESYSTEMLIST, filesystems(20))
    await collector.users("default/web", "carol")
    return moment


async def test_watch_since(shell: Shell, story: datetime) -> None:
    """What changed since a moment, with the value before, for programs and in columns; then it may end."""
    when = story.isoformat()
    objects = await shell.objects("watch", "--since", when, "-k", "userlist", "--no-follow")
    table = (await shell("watch", "--since", when, "--kind", "userlist", "-o", "table", "--no-follow")).splitlines()

    assert [(4, ["bob"], ["alice"]), (6, ["carol"], [])] == [
        (one["revision"], logged_in(one["data"]), logged_in(one.get("old", {}))) for one in objects
    ]
    assert ["TIME", "REVISION", "GUEST", "KIND", "HOST", "CHANGE"] == table[0].split()
    assert [
        "2026-02-03 00:00:00         4  prod/db1                 userlist        h1               + bob - alice",
        "2026-02-03 00:00:00         6  default/web              userlist        h1               carol",
    ] == table[1:]


async def test_watch_resumes(shell: Shell, story: datetime, bus: Bus) -> None:
    """The token of an object continues behind it, with no loss and nothing twice."""
    first = await shell.objects("watch", "--count", "2")
    rest = await shell.objects("watch", "--since", f"token:{first[-1]['token']}", "--no-follow")
    await bus.js.delete_stream("GUESTWIRE")
    await bus.ensure_stream()
    await Collector(bus).users("prod/db1", "zoe")
    anew = await shell.objects("watch", "--since", f"token:{rest[-1]['token']}", "--no-follow")

    assert [[1, 4], [5, 6], [1]] == [[one["revision"] for one in part] for part in (first, rest, anew)]
    assert [True, True, False, False, True] == [one.get("snapshot", False) for one in [*first, *rest, *anew]]
    assert anew[0]["reset"]


async def test_watch_kinds(shell: Shell, story: datetime) -> None:
    """Several kinds, one guest, all of it in words; --new begins behind what is there."""
    words = await shell("watch", "prod/db1", "-k", "agent", "-k", "userlist", "--no-follow")

    assert ["agent Running, agent connected", "userlist bob"] == [
        " ".join(line.split()[2:]) for line in words.splitlines()
    ]
    assert "" == await shell("watch", "--new", "--no-follow")


async def test_history(shell: Shell, story: datetime) -> None:
    """Each message: when, its revision, who saw it, and what changed with it, for people and for programs."""
    text = await shell("history", "prod/db1", "filesystemlist")
    objects = await shell.objects("history", "prod/db1", "userlist")
    since = await shell.objects("history", "prod/db1", "userlist", "--since", "2")
    last = await shell.objects("history", "prod/db1", "userlist", "--last", "1")

    assert [
        "REVISION  TIME                 HOST",
        "       3  2026-02-03 00:00:00  h1",
        "            the first value; from here on: /",
        "       5  2026-02-03 00:00:00  h1",
        "            items[/].usedBytes: 10 -> 20",
    ] == text.splitlines()
    assert [("2026-02-03T00:00:00Z", "h1", 2), ("2026-02-03T00:00:00Z", "h1", 4)] == [
        (one["time"], one["host"], one["revision"]) for one in objects
    ]
    assert [
        {"path": "items[alice]", "old": {"userName": "alice"}, "new": None},
        {"path": "items[bob]", "old": None, "new": {"userName": "bob"}},
    ] == objects[1]["differences"]
    assert [objects[1]] == since == last


async def test_history_of_heartbeats(shell: Shell, bus: Bus) -> None:
    """A message that only repeats is shown when asked for."""
    collector = Collector(bus)
    await collector.agent("prod/db1")
    await collector.agent("prod/db1")
    await collector.agent("prod/db1", Phase.GONE)

    assert [1, 3] == [one["revision"] for one in await shell.objects("history", "prod/db1", "agent")]
    assert [1, 2, 3] == [one["revision"] for one in await shell.objects("history", "prod/db1", "agent", "--all")]


async def test_diff(shell: Shell, story: datetime) -> None:
    """Between two moments: of a kind between revisions, and of everything since a time; nothing for nothing."""
    users = await shell("diff", "prod/db1", "userlist", "--since", "2", "--until", "4")
    fleet = await shell("diff", "--since", story.isoformat())
    objects = await shell.objects("diff", "prod/db1", "--since", "3")

    assert [
        "prod/db1 userlist  2026-02-03 00:00:00, revision 4",
        '  - items[alice]: {"userName":"alice"}',
        '  + items[bob]: {"userName":"bob"}',
    ] == users.splitlines()
    assert [
        "prod/db1 userlist  2026-02-03 00:00:00, revision 4",
        '  - items[alice]: {"userName":"alice"}',
        '  + items[bob]: {"userName":"bob"}',
        "prod/db1 filesystemlist  2026-02-03 00:00:00, revision 5",
        "    items[/].usedBytes: 10 -> 20",
        "default/web userlist  2026-02-03 00:00:00, revision 6",
        "    nothing before; now: carol",
    ] == fleet.splitlines()
    assert {"path": "items[/].usedBytes", "old": 10, "new": 20} in [d for one in objects for d in one["differences"]]
    assert "" == await shell("diff", "--since", "5", "--until", "5")
    assert 3 == len((await shell("diff", "-n", "prod", "--since", "2", "-k", "userlist")).splitlines())


async def test_diff_of_what_came_and_went(shell: Shell, bus: Bus) -> None:
    """A value that is what it was is no difference, whatever it was in between."""
    collector = Collector(bus)
    for name in ("alice", "bob", "alice"):
        await collector.users("prod/db1", name)

    assert "" == await shell("diff", "--since", "1")


async def test_another_guest_of_the_name(shell: Shell, bus: Bus) -> None:
    """A guest that was made anew is told to be another, with the differences to its predecessor."""
    collector = Collector(bus)
    await collector.say("prod/db1", Kind.USERLIST, users("alice"), uid="one")
    await collector.say("prod/db1", Kind.USERLIST, users(), uid="two")
    told = "another guest of that name: uid one -> two"

    assert told in await shell("history", "prod/db1", "userlist")
    assert told in await shell("diff", "--since", "1")


async def test_more_than_history_keeps(nats_server: NatsServer, shell: Shell) -> None:
    """What the stream does not keep is said to be missing, not taken for empty."""
    async with Bus(Nats(servers=(nats_server.url,), history=2), "test") as bus:
        await bus.ensure_stream()
        collector = Collector(bus)
        for number in range(5):
            await collector.users("prod/db1", str(number))

    assert "what was before is not kept; from here on: 3" in await shell("history", "prod/db1", "userlist")
    assert "what was before is not kept; now: 4" in await shell("diff", "--since", "1")


async def test_a_guest_cannot_command_the_terminal(shell: Shell, bus: Bus) -> None:
    """Control characters that a guest says are shown as question marks."""
    collector = Collector(bus)
    await collector.users("prod/db1", "\x1b[2J\u202e")
    await collector.users("prod/db1", "\x9b2J")
    texts = [
        await shell("watch", "--no-follow"),
        await shell("watch", "--since", "0", "--no-follow", "-o", "table"),
        await shell("history", "prod/db1", "userlist"),
        await shell("diff", "--since", "1"),
    ]

    assert [] == [
        character for text in texts for character in text if not character.isprintable() and character != "\n"
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["history", "prod/none", "userlist"], 1, "guestwire: nothing is known of userlist of prod/none in cluster c"),
        (["history", "prod/db1", "users"], 2, "'users' is not one of"),
        (["diff", "prod/db1", "userlist", "-k", "agent"], 2, "KIND and --kind exclude each other"),
        (["diff", "db1", "-n", "prod"], 2, "NAME and --namespace exclude each other"),
        (["diff", "--since", "4", "--until", "2"], 1, "guestwire: --until: that is before --since"),
        (["diff", "--since", "token:1-1-1"], 1, "guestwire: --since: the stream was made anew since then"),
        (["watch", "--new", "--since", "1h"], 2, "--new and --since exclude each other"),
    ],
)
async def test_mistakes(shell: Shell, story: datetime, arguments: list[str], status: int, words: str) -> None:
    """One line says what is wrong, and the exit status is honest."""
    told = (await shell(*arguments, status=status)).splitlines()[-1]

    assert words in told


@pytest.mark.parametrize("command", [["diff"], ["history", "a/b", "userlist"]])
async def test_one_look_does_not_wait(command: list[str]) -> None:
    """Where NATS does not answer, a command that looks once says so and fails."""
    address = f"nats://127.0.0.1:{free_port()}"

    assert f"guestwire: cannot reach NATS at {address}" in await Shell(address)(*command, status=1)


@pytest.mark.parametrize("command", [["diff"], ["history", "a/b", "userlist"], ["watch", "--since", "1h"]])
async def test_no_stream(shell: Shell, command: list[str]) -> None:
    """Where there is no stream, one line says so."""
    assert "guestwire: stream GUESTWIRE: " in await shell(*command, status=1)
