"""
The collector's side of a simulated host: `collectors.host.Host` over the socket on which the truth is told.

Places, patience and errors are those of `collectors.libvirt_host.LibvirtHost`.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec

from collectors import domain
from collectors.agent_commands import AgentCommand, Reply, parse
from collectors.domain import Domain
from collectors.host import Busy, NotRunning, OnHint
from collectors.libvirt_host import SUSPECT_CALLS, places
from guestwire.errors import AgentRefused, AgentUnresponsive, NotConnected
from guestwire.snapshot import Phase
from lab.soak.wire import MOST_BYTES, Answer, Request, line

FAILURES = {"silent": AgentUnresponsive, "not running": NotRunning, "refused": AgentRefused}
ANSWER_SECONDS = 30.0
"""Patience with the daemon itself."""


class SimulatedHost:
    """One host, by the last part of its URI."""

    def __init__(self, uri: str, connections: int, on_hint: OnHint, *, socket: Path) -> None:
        self.uri = uri
        self.name = uri.rpartition("/")[2]
        self.lost = asyncio.Event()
        self._socket = socket
        self._on_hint = on_hint
        self._connections = connections
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and listen for events. Raises NotConnected."""
        self.lost = asyncio.Event()
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._socket, limit=MOST_BYTES)
        except OSError as error:
            raise NotConnected(f"{self.uri}: {error}") from error
        self._places, self._suspects = places(range(self._connections)), places(range(SUSPECT_CALLS))
        self._reading = asyncio.create_task(self._read(reader), name=f"answers of {self.name}")
        try:
            await self._request("open", self.name)
        except NotConnected:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect."""
        if self._writer is not None:
            self._writer.transport.abort()
        if self._reading is not None:
            await self._reading

    def shutdown(self) -> None:
        """Nothing is held."""

    async def list(self) -> list[str]:
        """UUIDs of all domains. Raises NotConnected."""
        found: list[str] = (await self._request("list")).value
        return found

    async def domain(self, uuid: str) -> Domain | None:
        """A domain's present state; None when it does not exist. Raises NotConnected."""
        found = (await self._request("domain", uuid)).value
        return domain.parse(found[0], Phase(found[1])) if found else None

    async def ask(self, uuid: str, command: AgentCommand, timeout: int, *, suspect: bool = False) -> Reply:  # noqa: ASYNC109
        """One agent command, with the errors of `LibvirtHost.ask`."""
        if self._writer is None or self.lost.is_set():
            raise NotConnected(f"{self.uri}: not connected")
        room = self._suspects if suspect else self._places
        if suspect and room.empty():
            raise Busy("other agents that do not answer are being asked")
        place = await room.get()
        try:
            answer = await self._request("ask", uuid, command, timeout)
        finally:
            room.put_nowait(place)
        if answer.failure:
            raise FAILURES[answer.failure](answer.value)
        return parse(command, answer.value)

    async def _request(self, verb: str, subject: str = "", command: str = "", patience: float = 0.0) -> Answer:
        if self._writer is None or self.lost.is_set():
            raise NotConnected(f"{self.uri}: not connected")
        request = Request(next(self._numbers), verb, subject, command, patience)
        answer = self._waiting[request.number] = asyncio.get_running_loop().create_future()
        self._writer.write(line(request))
        try:
            return await asyncio.wait_for(answer, ANSWER_SECONDS)
        except TimeoutError as error:
            self.lost.set()
            raise NotConnected(f"{self.uri}: no answer within {ANSWER_SECONDS:g} s") from error
        finally:
            self._waiting.pop(request.number, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Until the connection ends; then whoever waits is told."""
        try:
            while text := await reader.readline():
                self._take(msgspec.json.decode(text, type=Answer))
        except (OSError, msgspec.DecodeError):
            pass
        self.lost.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NotConnected(f"{self.uri}: connection lost"))

    def _take(self, answer: Answer) -> None:
        value: Any = answer.value
        if answer.hint is not None:
            self._on_hint(value, answer.hint)
        elif (future := self._waiting.get(answer.number)) and not future.done():
            future.set_result(answer)
