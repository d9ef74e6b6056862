"""`guestwire top` on a real terminal, against a real stream."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from guestwire import codec, subjects
from guestwire.jetstream import Bus
from guestwire.snapshot import AgentState, Body, GuestRef, Kind, ListMeta, Phase, User, UserList
from lab.nats_server import NatsServer

GUESTWIRE = Path(sys.executable).with_name("guestwire")
NAMES = ("web1", "web2", "db1", "db2")


def environment(server: NatsServer, **settings: str) -> dict[str, str]:
    """Ours, with these settings and no others."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GUESTWIRE_")}
    return {**plain, "TERM": "xterm-256color", "GUESTWIRE_NATS__SERVERS": server.url, **settings}


async def say(bus: Bus, name: str, kind: str, body: Body, ago: float = 0) -> None:
    """As a collector does, or did."""
    ref, part = GuestRef("prod", name), codec.part(kind, body, codec.now() - timedelta(seconds=ago))
    identity, trace = codec.new_trace_id(), codec.new_trace_id()
    headers = codec.event_headers(
        ref=ref, uid=name, cluster="local", host="h1", part=part, message_id=identity, trace_id=trace
    )
    await bus.js.publish(subjects.subject("local", ref, kind), part.body, headers=headers)


async def agent(bus: Bus, name: str, ago: float = 0, **facts: Any) -> None:
    """Something about an agent."""
    usual: dict[str, Any] = {"phase": Phase.RUNNING, "channel": True, "connected": True, "since": codec.now()}
    names: dict[str, Any] = {"namespace": "prod", "name": name, "domain": name, "domain_uuid": name, "host": "h1"}
    await say(bus, name, Kind.AGENT, AgentState(uid=name, **(names | usual | facts)), ago)


async def users(bus: Bus, name: str, *who: str) -> None:
    """Who is logged in."""
    await say(bus, name, Kind.USERLIST, UserList(tuple(map(User, who)), ListMeta()))


class Terminal:
    """A terminal with a program on it; `lines` is what is to be seen."""

    def __init__(self, controller: int, process: subprocess.Popen[bytes]) -> None:
        self.controller = controller
        self.process = process
        self.written = ""

    @property
    def lines(self) -> list[str]:
        """The last whole picture, without styles."""
        pictures = [each for each in self.written.split("\x1b[H") if "\x1b[J" in each]
        text = pictures[-1].partition("\x1b[J")[0] if pictures else ""
        return [re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", line).rstrip() for line in text.split("\r\n")]

    def press(self, keys: str) -> None:
        """As a person does."""
        os.write(self.controller, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """The window gets another size."""
        fcntl.ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    async def until(self, text: str, *, there: bool = True, within: float = 60) -> list[str]:
        """Wait until a text is to be seen, or is not any more; the lines."""
        end = time.monotonic() + within
        while (text in "\n".join(self.lines)) != there or not self.lines[0]:
            assert time.monotonic() < end, f"{text!r}: {self.lines}"
            await self._take()
        return self.lines

    async def ended(self, within: float = 60) -> int:
        """The exit status."""
        end = time.monotonic() + within
        while (status := self.process.poll()) is None:
            assert time.monotonic() < end, f"it does not end: {self.lines}"
            await self._take()
        await self._take()
        return status

    async def _take(self) -> None:
        await asyncio.sleep(0.02)
        try:
            self.written += os.read(self.controller, 65536).decode()
        except (BlockingIOError, OSError):
            return


@asynccontextmanager
async def terminal(server: NatsServer, *arguments: str) -> AsyncIterator[Terminal]:
    """`guestwire top` on a terminal of 100 columns and 12 lines."""
    controller, side = pty.openpty()
    os.set_blocking(controller, False)
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 100, 0, 0))
    process = subprocess.Popen(  # noqa: ASYNC220 - it is started, not waited for
        [GUESTWIRE, "top", *arguments],
        stdin=side,
        stdout=side,
        stderr=subprocess.DEVNULL,
        env=environment(server),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - or nobody tells of a new size
    )
    before = termios.tcgetattr(side)
    try:
        yield Terminal(controller, process)
        assert before == termios.tcgetattr(side)
    finally:
        process.kill()
        process.wait()
        os.close(side)
        os.close(controller)


@pytest.fixture
async def fleet(bus: Bus) -> Bus:
    """Four guests."""
    for name in NAMES:
        await agent(bus, name)
        await users(bus, name, *(("alice",) if name == "db1" else ()))
    return bus


async def test_shows_the_fleet_and_its_changes(fleet: Bus, nats_server: NatsServer) -> None:
    """All guests are there; what changes shows by itself; `q` ends it and leaves the terminal as it was."""
    async with terminal(nats_server) as shown:
        lines = await shown.until("1-4 of 4")
        await agent(fleet, "web2", connected=False)
        await shown.until("1 disconnected")
        await agent(fleet, "db2", connected=False, phase=Phase.GONE)
        after = await shown.until("1-3 of 3")
        shown.press("q")
        status = await shown.ended()

    assert [f"prod/{name}" for name in sorted(NAMES)] == [line.split()[0] for line in lines[2:6]]
    assert [] == [line for line in after if "db2" in line]
    assert (0, 12) == (status, len(lines))
    assert shown.written.endswith("\x1b[?25h\x1b[?1049l")


async def test_stale(fleet: Bus, nats_server: NatsServer) -> None:
    """A guest of which nobody has told for three heartbeats is stale, until somebody does."""
    await agent(fleet, "web2", ago=910)
    async with terminal(nats_server) as shown:
        lines = await shown.until("1 stale")
        await agent(fleet, "web2")
        await shown.until("1 stale", there=False)
        shown.press("q")
        await shown.ended()

    assert ["stale"] == [line.split()[1] for line in lines if line.startswith("prod/web2")]


async def test_keys(fleet: Bus, nats_server: NatsServer) -> None:
    """A key sorts by its column, a slash filters as it is typed, Escape shows all again."""
    async with terminal(nats_server) as shown:
        await shown.until("1-4 of 4")
        shown.press("u")
        by_users = await shown.until("USERS↓")
        shown.press("/web")
        filtered = await shown.until("1-2 of 2")
        shown.press("\r")
        shown.press("\x1b")
        await shown.until("1-4 of 4")
        shown.press("\x03")
        status = await shown.ended()

    assert ("prod/db1", 0) == (by_users[2].split()[0], status)
    assert ["prod/web1", "prod/web2"] == [line.split()[0] for line in filtered[2:4]]


async def test_size(fleet: Bus, nats_server: NatsServer) -> None:
    """The picture has the size of the window, when it is made smaller as well; the rest is reached by scrolling."""
    async with terminal(nats_server) as shown:
        await shown.until("1-4 of 4")
        shown.resize(50, 6)
        small = await shown.until("1-2 of 4")
        shown.press("\x1b[B")
        await shown.until("2-3 of 4")
        shown.press("\x1b[F")
        await shown.until("3-4 of 4")
        shown.press("q")
        await shown.ended()

    assert (6, True) == (len(small), all(len(line) <= 50 for line in small))


async def test_nats_away(fleet: Bus, nats_server: NatsServer) -> None:
    """While NATS is away what was known stays, and that is said; afterwards it goes on."""
    async with terminal(nats_server) as shown:
        await shown.until("1-4 of 4")
        nats_server.stop()
        lines = await shown.until("NATS is away")
        nats_server.start()
        await shown.until("NATS is away", there=False)
        shown.press("q")
        await shown.ended()

    assert "1-4 of 4" in lines[-1]


def once(server: NatsServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Its output where that is no terminal."""
    return subprocess.run(
        [GUESTWIRE, "top", *arguments],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


async def test_once(fleet: Bus, nats_server: NatsServer) -> None:
    """Where there is no terminal the table is printed in full, once."""
    printed = await asyncio.to_thread(once, nats_server, "--sort", "users", "--namespace", "prod")
    rows = [line.split() for line in printed.stdout.splitlines()]
    nobody = await asyncio.to_thread(once, nats_server, "--filter", "nobody-is-called-this")

    assert (0, "GUEST", ["prod/db1", "connected", "1", "alice", "never"]) == (printed.returncode, rows[0][0], rows[1])
    assert (5, 1) == (len(rows), len(nobody.stdout.splitlines()))


async def test_no_stream(nats_server: NatsServer) -> None:
    """Without a stream there is nothing to show: one line says so."""
    printed = await asyncio.to_thread(once, nats_server)

    assert (1, "", 1) == (printed.returncode, printed.stdout, len(printed.stderr.strip().splitlines()[-1:]))
    assert "guestwire: stream GUESTWIRE" in printed.stderr
