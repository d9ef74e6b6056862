"""
The simulated hosts' daemon: it tells the truth over a socket, as libvirtd would, and can go away and return.

A connection is of one host. Requests are answered when the guest does, so one that hangs holds up nobody else.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Self

import msgspec

from collectors.host import Hint
from guestwire.lifecycle import cancel
from guestwire.snapshot import Phase
from lab.soak.truth import SimulatedGuest, Truth
from lab.soak.wire import MOST_BYTES, Answer, Request, line

ANSWER_SECONDS = (0.002, 0.010)
SYNC_SECONDS = 5.0
"""How long libvirt tries to get in step with an agent."""
SILENT = "Guest agent is not responding: Guest agent not available for now"


class TruthServer:
    """Serves from entering to leaving its context, but for the time it is `away`."""

    def __init__(self, truth: Truth, socket: Path) -> None:
        self._truth = truth
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hang_up()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def away(self, seconds: float) -> None:
        """The daemon ends, and another one starts."""
        self._hang_up()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._listen()

    async def _listen(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._socket, limit=MOST_BYTES)

    def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            if opened := await reader.readline():
                await self._serve_host(msgspec.json.decode(opened, type=Request), reader, writer)
        except ConnectionError:  # it was killed
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _serve_host(self, opened: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = opened.subject

        def tell(where: str, uuid: str, hint: Hint) -> None:
            if where == host:
                writer.write(line(Answer(0, uuid, hint=hint)))

        answering: set[asyncio.Task[None]] = set()
        self._truth.listeners.add(tell)
        writer.write(line(Answer(opened.number)))
        try:
            while text := await reader.readline():
                answer = asyncio.create_task(self._answer(host, msgspec.json.decode(text, type=Request), writer))
                answering.add(answer)
                answer.add_done_callback(answering.discard)
        finally:
            self._truth.listeners.discard(tell)
            await cancel(*answering)

    async def _answer(self, host: str, request: Request, writer: asyncio.StreamWriter) -> None:
        domains = self._truth.at(host)
        guest = domains.get(request.subject)
        answer = Answer(request.number)
        match request.verb:
            case "list":
                answer.value = list(domains)
            case "domain":
                answer.value = (guest.xml(), guest.phase) if guest else None
            case "ask":
                await _ask(guest, request, answer)
        if not writer.is_closing():
            writer.write(line(answer))


async def _ask(guest: SimulatedGuest | None, request: Request, answer: Answer) -> None:
    """What the agent says, once it does; one that had not answered before is first got in step again, as by libvirt."""
    if guest is None:
        answer.failure, answer.value = "refused", "Domain not found"
        return
    async with guest.channel:
        answer.failure, answer.value = _hindrance(guest, request)
        if not answer.failure and not guest.awake.is_set():
            guest.in_step, patience = False, request.patience if guest.in_step else SYNC_SECONDS
            try:
                await asyncio.wait_for(guest.awake.wait(), patience)
            except TimeoutError:
                answer.failure, answer.value = "silent", SILENT
                return
        guest.in_step = True
        await asyncio.sleep(random.uniform(*ANSWER_SECONDS))  # noqa: S311
        answer.failure, answer.value = _hindrance(guest, request)
        if not answer.failure:
            answer.value = msgspec.json.encode({"return": guest.reply(request.command)}).decode()


def _hindrance(guest: SimulatedGuest, request: Request) -> tuple[str, str]:
    """Why an agent cannot be asked, in libvirt's words; empty where it can."""
    if not guest.there or guest.uuid != request.subject:
        return "refused", "Domain not found"
    if guest.phase is not Phase.RUNNING:
        return "not running", "Requested operation is not valid: domain is not running"
    if not guest.connected:
        return "silent", "Guest agent is not responding: QEMU guest agent is not connected"
    return "", ""
