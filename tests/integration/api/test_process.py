"""The process: its start, its end, its settings, and the command that asks it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.server import listen
from guestwire import codec, settings

USERLIST = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm1/userlist"
GUESTWIRE = Path(sysconfig.get_path("scripts"), "guestwire")


def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run `guestwire` to its end: exit status, standard output, standard error."""
    done = subprocess.run(
        [GUESTWIRE, *arguments], env=os.environ | environ, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


async def ask(*arguments: str) -> tuple[int, str, str]:
    """Run `guestwire` while the event loop goes on."""
    return await asyncio.to_thread(run, *arguments)


@asynccontextmanager
async def process(nats: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`guestwire serve` on a port, ready."""
    environ = {
        "GUESTWIRE_NATS__SERVERS": nats,
        "GUESTWIRE_API__LISTEN": f"127.0.0.1:{port}",
        "GUESTWIRE_SHUTDOWN_GRACE": "8",
    }
    child = await asyncio.create_subprocess_exec(
        GUESTWIRE, "serve", env=os.environ | environ, stderr=subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_sigterm_during_requests(world: Any, site: Any) -> None:
    """At SIGTERM nobody new gets in, idle connections end, and answers under way arrive whole; status 0."""
    await world.agent()
    revision = await world.userlist(*(f"user{number}" for number in range(40000)))
    async with (
        process(world.nats.url, site.port) as child,
        site.connected_patiently() as busy,
        site.connected() as idle,
    ):
        await site.applied(revision)
        idle.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost", "Content-Length: 0")
        await idle.reply()
        busy.writer.transport.pause_reading()
        for number in range(30):
            busy.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost", *(["Content-Length: 0"] if number % 2 else []))
        await asyncio.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        assert await idle.closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", site.port)
        busy.writer.transport.resume_reading()
        replies = [await busy.reply() for _ in range(30)]

        assert await busy.closed()
        assert 0 == await asyncio.wait_for(child.wait(), 5)
    assert [f'"{revision}"'] * 30 == [reply["etag"] for reply in replies]
    assert ["close"] == [reply["connection"] for reply in replies if reply["connection"]]


async def test_names_of_loopback(world: Any, site: Any) -> None:
    """With nothing set it answers under names of this host only."""
    async with process(world.nats.url, site.port), site.connected_patiently() as connection:
        statuses = []
        for host in (f"127.0.0.1:{site.port}", "evil.example", "localhost"):
            connection.send("GET /livez HTTP/1.1", f"Host: {host}")
            statuses.append((await connection.reply()).status)

        assert [200, 421, 200] == statuses


async def test_sigterm_when_idle(world: Any, site: Any) -> None:
    """An idle process ends at once, with whom is connected."""
    async with process(world.nats.url, site.port) as child, site.connected_patiently():
        child.send_signal(signal.SIGTERM)
        assert 0 == await asyncio.wait_for(child.wait(), 3)


async def test_sigterm_before_nats(site: Any) -> None:
    """A process that has never reached NATS ends as well as any other."""
    async with process("nats://127.0.0.1:9", site.port) as child, site.connected_patiently():
        child.send_signal(signal.SIGTERM)
        assert 0 == await asyncio.wait_for(child.wait(), 3)


async def test_sigterm_with_a_client_that_does_not_read(world: Any, site: Any) -> None:
    """A client that takes nothing does not hold the process past its grace."""
    await world.agent()
    revision = await world.userlist(*(f"user{number}" for number in range(40000)))
    async with process(world.nats.url, site.port) as child, site.connected_patiently() as deaf:
        await site.applied(revision)
        deaf.writer.transport.pause_reading()
        for _ in range(30):
            deaf.send(f"GET {USERLIST} HTTP/1.1", "Host: localhost")
        await asyncio.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        assert 0 == await asyncio.wait_for(child.wait(), 9)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_serves_strangers_only_when_told(listen: str) -> None:
    """Without authentication only loopback addresses are listened on: one line says so and what to do."""
    expected = (
        f"guestwire: api.listen: {listen} is no loopback address, and the API asks nobody who they are; "
        "listen on 127.0.0.1, or set api.insecure to serve whoever asks\n"
    )
    assert (2, "", expected) == run("serve", GUESTWIRE_API__LISTEN=listen)


async def test_says_whom_it_serves(started: Any, caplog: pytest.LogCaptureFixture) -> None:
    """On loopback, where nobody is asked who they are, the first line of the log says so."""
    caplog.set_level(logging.INFO)
    await started(connect=False)
    (line,) = [record.getMessage() for record in caplog.records if "serving" in record.getMessage()]

    assert "127.0.0.1:" in line
    assert "whoever asks" in line


def test_serves_strangers_when_told() -> None:
    """The setting that insists is enough."""
    with listen(settings.Api(listen="0.0.0.0:0", insecure=True)) as listening:
        assert "0.0.0.0" == listening.getsockname()[0]


async def test_port_is_taken(alone: Any) -> None:
    """A taken port is one line that names the setting."""
    status, _, error = await asyncio.to_thread(run, "serve", GUESTWIRE_API__LISTEN=f"127.0.0.1:{alone.port}")

    assert 2 == status
    assert error.startswith(f"guestwire: api.listen: cannot listen on 127.0.0.1:{alone.port}: ")
    assert 1 == len(error.splitlines())


async def test_get(alone: Any) -> None:
    """`guestwire get` prints what the API says, indented or as it came."""
    server = f"http://127.0.0.1:{alone.port}"
    status, text, _ = await ask("get", "userlist", "default/vm1", "--server", server)
    raw = await ask("get", "userlist", "vm1", "-o", "raw", "--server", server)

    assert (0, {"items": [{"userName": "root"}], "metadata": {}}) == (status, msgspec.json.decode(text))
    assert text.startswith('{\n  "items": [\n    {\n      "userName": "root"\n')
    assert (0, '{"items":[{"userName":"root"}],"metadata":{}}', "") == raw


async def test_get_asks_the_local_api(alone: Any) -> None:
    """Without --server it asks where `guestwire serve` listens; a proxy in the environment is not asked."""
    environ = {"GUESTWIRE_API__LISTEN": f"0.0.0.0:{alone.port}", "http_proxy": "http://127.0.0.1:9"}
    status, text, _ = await asyncio.to_thread(run, "get", "userlist", "vm1", "-o", "raw", **environ)

    assert (0, '{"items":[{"userName":"root"}],"metadata":{}}') == (status, text)


async def test_get_says_what_the_api_says(alone: Any) -> None:
    """An error is the API's own message in one line; names of any characters reach it as they are."""
    server = f"http://127.0.0.1:{alone.port}/"

    assert (1, "", 'guestwire: virtualmachineinstance.kubevirt.io "é /x%" not found\n') == await ask(
        "get", "userlist", "default/é /x%", "--server", server
    )


@pytest.mark.parametrize(
    ("server", "status", "message"),
    [
        ("http://127.0.0.1:9", 1, "cannot reach the API at http://127.0.0.1:9: [Errno 111] Connection refused"),
        ("127.0.0.1:9", 2, "--server: 127.0.0.1:9 is no URL; write http://HOST:PORT"),
    ],
)
def test_get_without_an_api(server: str, status: int, message: str) -> None:
    """An API that is not there is one line."""
    assert (status, "", f"guestwire: {message}\n") == run("get", "userlist", "vm1", "--server", server)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The completion script of a shell is printed, for the command `guestwire`."""
    status, text, error = run("completion", shell)

    assert (0, "") == (status, error)
    assert f"_GUESTWIRE_COMPLETE={shell}_complete" in text


def test_completion_completes() -> None:
    """What the script asks for at the TAB key: the kinds that can be read."""
    answer = run(_GUESTWIRE_COMPLETE="bash_complete", COMP_WORDS="guestwire get ", COMP_CWORD="2")

    assert [f"plain,{kind}" for kind in ("guest", *codec.kinds())] == answer[1].split()
