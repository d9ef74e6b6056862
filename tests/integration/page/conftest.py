"""The live page's server over a socket, alone with a cache that a test fills, and those who look on."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse, ClientSession, ClientTimeout

from api.app import Api, Limits
from api.cache import Cache
from api.history import History
from api.metrics import Metrics
from api.security import Security
from api.server import Server, config, listen
from guestwire import settings
from guestwire.jetstream import Bus
from lab.browser import Browser
from lab.errors import LabError
from lab.fleet import Fleet
from lab.process import OwnedDirectory, program

GUESTS = "/apis/guestwire.io/v1/guests?watch=true"


class Event(msgspec.Struct):
    """A server-sent event; `id` is None where it has none."""

    name: str
    data: Any
    id: str | None = None


class Events:
    """A stream of them as a client reads it."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response

    async def next(self) -> Event | None:
        """The next; None at the proper end of the stream. Other fields are passed over."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(60):
            while line := (await self.response.content.readline()).decode():
                name, _, value = line.rstrip("\n").partition(":")
                if name:
                    fields[name] = value.removeprefix(" ")
                elif "data" in fields:
                    return Event(fields["event"], msgspec.json.decode(fields["data"]), fields.get("id"))
        return None

    async def until(self, name: str) -> list[Event]:
        """All events up to the first of this name, included."""
        events = []
        while event := await self.next():
            events.append(event)
            if event.name == name:
                return events
        pytest.fail(f"the stream ended before {name}")


class Served:
    """An API that listens."""

    def __init__(self, api: Api, http: ClientSession) -> None:
        self.api = api
        self.cache = api.cache
        self.fleet = Fleet(api.cache)
        self.http = http
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, or listen again on the same port."""
        listening = listen(settings.Api(listen=f"127.0.0.1:{self.port}"))
        self.port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = Server(config(self.api, grace=5))
        self._task = asyncio.create_task(self.server.serve([listening]))

    async def stop(self) -> None:
        """As at the end of the process, but that streams are cut off."""
        self.server.should_exit = True
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()
        await self._task

    async def end(self) -> None:
        """As at the end of the process."""
        self.server.should_exit = True
        self.api.end()
        await self.http.close()
        await self._task

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(self.url + path, headers=named) as response:
            return (
                response.status,
                {name.lower(): value for name, value in response.headers.items()},
                await response.read(),
            )

    @asynccontextmanager
    async def events(self, path: str = GUESTS, **headers: str) -> AsyncIterator[Events]:
        """A stream of events."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(self.url + path, headers={"Accept": "text/event-stream", **named}) as response:
            yield Events(response)


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts an API: with limits, with tokens by name and namespaces, with a connection to a stream."""
    ending: list[Served] = []

    async def start(
        limits: Limits | None = None, tokens: dict[str, str] | None = None, bus: Bus | None = None
    ) -> Served:
        access = None
        if tokens:
            file = tmp_path / "readers"
            digests = {secret: hashlib.sha256(secret.encode()).hexdigest() for secret in tokens}
            file.write_text("".join(f"{name} sha256:{digests[name]} {granted}\n" for name, granted in tokens.items()))
            access = Security(settings.Api(readers=str(file))).access
        cache = Cache()
        metrics = Metrics(cache, connected=lambda: True, skipped=lambda: 0, api=settings.Api())
        api = Api(cache, metrics, limits or Limits(), access, None, History(bus, "local") if bus else None)
        served = Served(api, ClientSession(timeout=ClientTimeout(total=None), read_bufsize=2**22))
        ending.append(served)
        return served

    yield start
    for served in ending:
        await served.end()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A window of Chromium."""
    try:
        program("chromedriver")
    except LabError as error:
        if os.environ.get("LAB_REQUIRE") or os.environ.get("CI"):
            raise
        pytest.skip(f"no Chromium here: {error}")
    with OwnedDirectory() as directory:
        async with Browser(directory) as browser:
            await browser.show(1280, 800)
            yield browser


@pytest.fixture
async def served(serve: Serve) -> Served:
    """An API with a few guests."""
    served = await serve()
    served.fleet.fill(30)
    return served
