"""A proxy between the writer and a real API server, which goes wrong as a test tells it to."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from lab.kube_apiserver import KubeApiserver

Fault = int | Literal["hang", "close", "swallow"] | None
"""A status that the proxy answers itself; never an answer; a closed connection before or after the server acted."""


@dataclass
class FaultyProxy:
    """Serves the API server's certificate authority's certificate; what is asked passes through unless `fault` says."""

    kube: KubeApiserver
    directory: Path
    fault: Callable[[str], Fault] | None = None
    """Told `METHOD PATH`."""
    rewrite: Callable[[str], str] | None = None
    """Makes another path of one."""
    retry_after: str = ""
    seen: list[tuple[float, str, str, Fault]] = field(default_factory=list)
    """Moment (monotonic), method, path and fault of every request."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """The URL."""
        keys = self.kube.ca.issue(self.directory / "proxy", "proxy", hosts=["127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys.certificate, keys.key)
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context, limit=2**22)
        try:
            yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.break_connections()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def kubeconfig(self, url: str, account: str) -> Path:
        """One that leads here, with a service account's token, which passes through."""
        document = json.loads(self.kube.kubeconfig_for(account, "default").read_text())
        document["clusters"][0]["cluster"]["server"] = url
        path = self.directory / "kubeconfig-proxy"
        path.write_text(json.dumps(document))
        return path

    def break_connections(self) -> None:
        """End everything that is under way."""
        for task in self._tasks:
            task.cancel()

    def count(self, method: str) -> int:
        """Requests of a method."""
        return sum(seen[1] == method for seen in self.seen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        self._tasks.discard(task)
        writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = [line for line in lines[1:] if line and not line.lower().startswith("connection:")]
        length = next((int(line.split(":")[1]) for line in headers if line.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        fault = self.fault(f"{method} {path}") if self.fault else None
        self.seen.append((time.monotonic(), method, path, fault))
        match fault:
            case "hang":
                await asyncio.Event().wait()
            case "close":
                return False
            case int():
                after = f"Retry-After: {self.retry_after}\r\n" if self.retry_after else ""
                writer.write(f"HTTP/1.1 {fault} Trouble\r\n{after}Content-Length: 7\r\n\r\ntrouble".encode())
                await writer.drain()
                return True
        target = self.rewrite(path) if self.rewrite else path
        await self._forward([f"{method} {target} HTTP/1.1", *headers], body, writer, fault)
        return False

    async def _forward(self, head: list[str], body: bytes, writer: asyncio.StreamWriter, fault: Fault) -> None:
        address = urlsplit(self.kube.url)
        context = ssl.create_default_context(cafile=str(self.kube.ca.certificate))
        upstream_reader, upstream = await asyncio.open_connection(address.hostname, address.port, ssl=context)
        try:
            upstream.write("\r\n".join([*head, "Connection: close", "", ""]).encode() + body)
            while data := await upstream_reader.read(65536):
                if fault != "swallow":
                    writer.write(data)
                    await writer.drain()
        finally:
            upstream.transport.abort()  # close() would wait for the other side, longer than the test lasts
