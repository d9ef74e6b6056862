"""HTTP as plain as it gets, to compare clients with: one connection, requests in turn, written and read by hand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Self
from urllib.parse import urlsplit


class Http:
    """One connection to the API server; requests one after the other, written and read by hand."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._address = urlsplit(url)
        self._context = context

    async def __aenter__(self) -> Self:
        host, port = self._address.hostname, self._address.port
        self.reader, self.writer = await asyncio.open_connection(host, port, ssl=self._context, limit=2**20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> int:
        """The status of the answer, whose head is read."""
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        self._head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        return int(self._head.split(b" ", 2)[1])

    async def body(self) -> bytes:
        """The rest of the answer."""
        if b"content-length:" in self._head:
            return await self.reader.readexactly(int(self._head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The parts of an answer without a length."""
        while size := int(await self.reader.readline(), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
