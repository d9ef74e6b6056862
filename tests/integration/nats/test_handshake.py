"""Servers that take a connection and do not become one of NATS: whatever is given up on is let go of, at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self
from urllib.parse import urlsplit

import pytest

from guestwire.jetstream import Bus
from guestwire.lifecycle import cancel
from guestwire.settings import Nats
from lab.nats_server import NatsServer


class Stranger:
    """Takes connections, says its one thing, and counts who is there."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.came = self.here = self.most = 0
        self._changed = asyncio.Condition()

    @classmethod
    @contextlib.asynccontextmanager
    async def listening(cls, says: bytes, port: int = 0) -> AsyncIterator[tuple[Self, Bus]]:
        """One, and who is to connect to it."""
        stranger = cls(says)
        server = await asyncio.start_server(stranger._serve, "127.0.0.1", port)
        url = "nats://{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            yield stranger, Bus(Nats(servers=(url,), timeout=0.3), "test")

    async def until_came(self, connections: int) -> None:
        """Wait for so many connections, of which the last may be gone again."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: self.came >= connections)

    async def until_alone(self) -> None:
        """Wait until the other end of every connection has closed it."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: not self.here)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._count(came=1, here=1)
        with contextlib.suppress(ConnectionError):
            writer.write(self.says)
            await reader.read()
        writer.transport.abort()
        await self._count(came=0, here=-1)

    async def _count(self, *, came: int, here: int) -> None:
        async with self._changed:
            self.came += came
            self.here += here
            self.most = max(self.most, self.here)
            self._changed.notify_all()


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["nothing", "something else"])
async def test_given_up(says: bytes) -> None:
    """Who stops waiting for a server leaves no connection behind."""
    async with Stranger.listening(says) as (stranger, bus):
        opening = asyncio.create_task(bus.open(asyncio.Event()))
        await stranger.until_came(1)
        await cancel(opening)

        await stranger.until_alone()


async def test_tried_again() -> None:
    """Each attempt takes the place of the one before: their number does not become that of open connections."""
    async with Stranger.listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (stranger, bus):
        stop = asyncio.Event()
        opening = asyncio.create_task(bus.open(stop))
        await stranger.until_came(4)
        stop.set()

        assert not await opening
        assert stranger.most <= 2  # the next may come before it is heard that the last went
        await stranger.until_alone()


async def test_in_the_place_of_a_server(nats_server: NatsServer) -> None:
    """It is the same for a connection that was lost and is to be had back."""
    port = urlsplit(nats_server.url).port or 0
    async with Bus(Nats(servers=(nats_server.url,), timeout=0.3), "test"):
        nats_server.stop()
        async with Stranger.listening(b"", port) as (stranger, _):
            await stranger.until_came(4)

            assert stranger.most <= 2
