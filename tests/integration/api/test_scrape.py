"""`/metrics` and `/metrics/guests` over a socket: who gets what, small and large, whole and compressed."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.app import Api, Limits
from api.cache import Cache
from api.metrics import Metrics
from api.scrape import AT_ONCE, SMALL
from api.security import Security
from api.server import Server, config, listen
from guestwire import codec, settings
from guestwire.codec import Event
from guestwire.jetstream import Message
from guestwire.snapshot import AgentState, GuestRef, Kind, Phase
from guestwire.subjects import Address

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = "monitors"
MANY = 20_000
"""Guests whose metrics do not fit into the buffers of a socket."""


class Site:
    """A server that is asked by hand."""

    def __init__(self, port: int, cache: Cache) -> None:
        self.port = port
        self.cache = cache

    def fill(self, guests: int) -> None:
        """So many guests."""
        self.cache.begin()
        for number in range(guests):
            ref = GuestRef("default", f"vm{number:05}")
            state = AgentState(
                "default", ref.name, "u", "d", "u", "h", Phase.RUNNING, channel=True, connected=True, since=NOON
            )
            event = Event(id="1", source="/guestwire/local/h", uid="u", time=NOON, trace_id="")
            self.cache.apply(Message(Address("local", ref, Kind.AGENT), number + 1, event, codec.encode(state), {}))
        self.cache.complete()

    async def ask(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """One request: status, headers, the body put together again."""
        reader, writer = await self.begin(path, *headers, method=method)
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        status, *lines = head.decode().splitlines()
        found = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        if found.get("transfer-encoding") == "chunked":
            rest, chunks = b"", rest
            while chunks:
                size, _, chunks = chunks.partition(b"\r\n")
                rest, chunks = rest + chunks[: int(size, 16)], chunks[int(size, 16) + 2 :]
        return int(status.split()[1]), found, rest

    async def begin(
        self, path: str, *headers: str, method: str = "GET"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A request whose answer is not read yet."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024)
        lines = (f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "")
        writer.write("".join(f"{line}\r\n" for line in lines).encode())
        return reader, writer


Serving = Callable[..., AbstractAsyncContextManager[Site]]


@asynccontextmanager
async def serving(**api: Any) -> AsyncIterator[Site]:
    """The real server with these settings, its cache not filled yet."""
    chosen = settings.Api(listen="127.0.0.1:0", **api)
    cache = Cache()
    metrics = Metrics(cache, connected=lambda: False, skipped=lambda: 0, api=chosen)
    server = Server(config(Api(cache, metrics, Limits(), Security(chosen).access), grace=5))
    listening = listen(chosen)
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield Site(listening.getsockname()[1], cache)
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def readers(tmp_path: Path) -> str:
    """A file with one reader of everything, and one of a namespace."""
    lines = ((TOKEN, "*"), ("alices", "default"))
    file = tmp_path / "readers"
    file.write_text("".join(f"x sha256:{hashlib.sha256(token.encode()).hexdigest()} {who}\n" for token, who in lines))
    return str(file)


async def test_both_paths() -> None:
    """Where whoever asks may read, /metrics holds the process's and the guests', /metrics/guests the latter alone."""
    async with serving() as site:
        site.fill(1)
        (status, headers, both), (_, _, guests) = await site.ask("/metrics"), await site.ask("/metrics/guests")

    assert (200, "text/plain") == (status, headers["content-type"].partition(";")[0])
    assert both.endswith(guests)
    assert both.startswith(b"# HELP guestwire_api_requests_total")
    assert guests.startswith(b"# HELP guestwire_guest_info")


async def test_before_the_cache_is_filled() -> None:
    """The process tells of itself; of guests nothing can be said yet, and that is not nothing."""
    async with serving() as site:
        (process, _, text), (guests, headers, _) = await site.ask("/metrics"), await site.ask("/metrics/guests")

    assert (200, True, False) == (process, b"guestwire_api_caught_up 0.0" in text, b"guestwire_guest" in text)
    assert (503, "1") == (guests, headers["retry-after"])


async def test_switched_off() -> None:
    """No metrics of guests, and no path."""
    async with serving(guest_metrics="off") as site:
        site.fill(1)
        (_, _, text), (status, _, _) = await site.ask("/metrics"), await site.ask("/metrics/guests")

    assert (False, 404) == (b"guestwire_guest" in text, status)


async def test_names_of_kubevirt() -> None:
    """By setting."""
    async with serving(guest_metrics="kubevirt") as site:
        site.fill(1)
        _, _, text = await site.ask("/metrics")

    assert (True, False) == (b"\nkubevirt_vmi_info{" in text, b"\nguestwire_guest_info{" in text)


@pytest.mark.parametrize(("open_metrics", "process"), [(True, [200, 200, 200]), (False, [401, 403, 200])])
async def test_who_may_read(readers: str, open_metrics: bool, process: list[int]) -> None:
    """Metrics that are open to whoever asks tell nothing of guests; those take a reader of everything."""
    askers: list[tuple[str, ...]] = [(), ("Authorization: Bearer alices",), (f"Authorization: Bearer {TOKEN}",)]
    async with serving(readers=readers, open_metrics=open_metrics) as site:
        site.fill(1)
        answers = [await site.ask("/metrics", *who) for who in askers]
        guests = [await site.ask("/metrics/guests", *who) for who in askers]

    assert process == [status for status, _, _ in answers]
    assert [False, False, not open_metrics] == [b"guestwire_guest" in text for _, _, text in answers]
    assert [401, 403, 200] == [status for status, _, _ in guests]


async def test_small_and_large() -> None:
    """A small answer has a length; a large one is sent as it is made, compressed for who accepts that."""
    async with serving() as site:
        site.fill(1)
        _, small, text = await site.ask("/metrics/guests", "Accept-Encoding: gzip")
        site.fill(1000)
        _, large, plain = await site.ask("/metrics/guests")
        _, packed, compressed = await site.ask("/metrics/guests", "Accept-Encoding: gzip")
        status, head, nothing = await site.ask("/metrics/guests", method="HEAD")

    assert [str(len(text)), None] == [small["content-length"], small.get("content-encoding")]
    assert ["chunked", None, "chunked", "gzip"] == [
        large["transfer-encoding"],
        large.get("content-encoding"),
        packed["transfer-encoding"],
        packed["content-encoding"],
    ]
    assert len(plain) > SMALL > len(compressed)
    assert plain == zlib.decompress(compressed, wbits=31)
    assert (200, b"", "accept-encoding") == (status, nothing, head["vary"])


async def test_scrapes_at_once() -> None:
    """As many as may be are under way while clients do not read on; one more is refused; who leaves makes room."""
    async with serving() as site:
        site.fill(MANY)
        slow = [await site.begin("/metrics/guests") for _ in range(AT_ONCE)]
        for reader, _ in slow:
            await reader.readuntil(b"\r\n\r\n")
        status, headers, _ = await site.ask("/metrics/guests")
        for _, writer in slow:
            writer.transport.abort()
        async with asyncio.timeout(30):
            while (await site.ask("/metrics/guests", method="HEAD"))[0] != 200:  # noqa: ASYNC110 - behind a socket
                await asyncio.sleep(0.05)

    assert (503, "1") == (status, headers["retry-after"])
