"""Ten thousand clients that watch, and hear nothing until it concerns them."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

WATCHERS = 10_000
BYTES = 64 * 1024
"""Of memory that a watch may cost, its connection included."""

GUESTWIRE = Path(sysconfig.get_path("scripts"), "guestwire")


@pytest.fixture
def many_files() -> Iterator[None]:
    """Open files for both ends' processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < WATCHERS + 500:
        pytest.skip(f"this process may open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (WATCHERS + 500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(240)
async def test_idle_watchers(world: Any, site: Any, many_files: None) -> None:
    """They cost little, and a change wakes those whom it concerns."""
    environ = {
        "GUESTWIRE_NATS__SERVERS": world.nats.url,
        "GUESTWIRE_API__LISTEN": f"127.0.0.1:{site.port}",
        "GUESTWIRE_API__CONNECTIONS": str(WATCHERS + 100),
    }
    revision = await world.agent()
    async with AsyncExitStack() as stack:
        child = await asyncio.create_subprocess_exec(
            GUESTWIRE, "serve", env=os.environ | environ, stderr=subprocess.DEVNULL
        )
        stack.callback(child.kill)
        await stack.enter_async_context(site.connected_patiently())
        await site.applied(revision)
        before = memory(child.pid)
        watches = []
        for number in range(WATCHERS):
            watch = await stack.enter_async_context(site.connected())
            name = f"vm{number % 5000 + 1}"
            watch.send(
                "GET /apis/guestwire.io/v1/namespaces/default/guests?watch=1"
                f"&resourceVersion={revision}&fieldSelector=metadata.name={name} HTTP/1.1",
                "Host: localhost",
            )
            watches.append(watch)
        heads = await asyncio.gather(*(watch.reader.readuntil(b"\r\n\r\n") for watch in watches))
        assert {b"HTTP/1.1 200 OK"} == {head.splitlines()[0] for head in heads}
        assert WATCHERS == await site.metric("guestwire_api_watches")
        cost = (memory(child.pid) - before) / WATCHERS

        await world.userlist("alice")
        concerned = [watches[0], watches[5000]]
        lines = await asyncio.gather(*(asyncio.wait_for(watch.reader.readuntil(b"}\n"), 60) for watch in concerned))
        assert all(b'"userName":"alice"' in line for line in lines)
        assert [] == [watch for watch in watches if watch not in concerned and watch.reader._buffer]
    await child.wait()

    assert cost < BYTES, f"{cost:.0f} bytes a watch"
