"""
A libvirt host with simulated guests, for measuring a collector with more guests than a machine can run.

Simulated is what lies beyond libvirt's library: time passes as with a real agent, and replies and XML are those of a
real guest (`recorded/`), varied per guest. What costs the collector CPU is real: its threads, the reading of the XML
and the parsing of replies, and the same places limit it. What libvirt's own library costs is not in it.
`tests/contract/test_host_edge.py` holds it to the behaviour of a real host.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from collectors import domain
from collectors.agent_commands import AgentCommand, Reply, parse
from collectors.domain import Domain
from collectors.host import Busy, Hint, NotRunning, OnHint
from collectors.libvirt_host import LOOKUPS, SUSPECT_CALLS, places
from collectors.threads import Threads
from guestwire.errors import AgentRefused, AgentUnresponsive, NotConnected
from guestwire.snapshot import Phase

T = TypeVar("T")

RECORDED = Path(__file__).parent / "recorded"
XML = (RECORDED / "domain.xml").read_text()
REPLIES: dict[str, Any] = json.loads((RECORDED / "replies.json").read_text())
SAME = {command: json.dumps(REPLIES[command]) for command in AgentCommand if command in REPLIES}

ANSWER_SECONDS = (0.005, 0.030)
"""Shortest and longest time an agent takes for a command."""
SYNC_SECONDS = 5.0
"""After a time-out libvirt first gets in step with the agent again, and waits so long for that."""
LOOKUP_SECONDS = 0.0002
CHANGE = 0.05
"""Chance that a lively guest's users or addresses have changed since they were last asked for."""


class SimulatedGuest:
    """A domain that runs, with an agent; `lively` ones change slowly."""

    def __init__(self, name: str, *, connected: bool = True, lively: bool = False) -> None:
        self.name = name
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        self.phase = Phase.RUNNING
        self.connected = connected
        self.awake = asyncio.Event()
        self.awake.set()
        self.in_step = True
        self.channel = asyncio.Lock()
        """libvirt asks an agent one thing at a time."""
        self.told: Callable[[Hint], None] = lambda _hint: None
        """How libvirt tells what happens to it; set by its host."""
        self.first_answer: float | None = None
        self.last_answer: float | None = None
        self.longest_gap = 0.0
        """Seconds of a monotonic clock: the first and last time it answered, and the longest time between two."""
        self._lively = lively
        self._users = 1
        self._addresses = 0
        self._used = 0

    def hang(self) -> None:
        """The agent stops answering; no event tells."""
        self.awake.clear()

    def wake(self) -> None:
        """The agent answers again."""
        self.awake.set()

    def connect(self) -> None:
        """The agent opens its channel."""
        self.connected = True
        self.told(Hint.AGENT)

    def disconnect(self) -> None:
        """The agent ends."""
        self.connected = False
        self.told(Hint.AGENT)

    def suspend(self) -> None:
        """The CPUs stop."""
        self.phase = Phase.PAUSED
        self.told(Hint.STATE)

    def resume(self) -> None:
        """The CPUs run on."""
        self.phase = Phase.RUNNING
        self.told(Hint.EVERYTHING)

    def xml(self) -> str:
        """The live XML, as libvirt formats it at every look."""
        state = "connected" if self.connected else "disconnected"
        octets = self.uuid.replace("-", "")
        mac = f"52:54:00:{octets[:2]}:{octets[2:4]}:{octets[4:6]}"
        return XML.format(name=self.name, uuid=self.uuid, mac=mac, state=state)

    def reply(self, command: AgentCommand) -> str:
        """What the agent says now."""
        now = time.monotonic()
        self.first_answer = self.first_answer or now
        self.longest_gap = max(self.longest_gap, now - (self.last_answer or now))
        self.last_answer = now
        changed = self._lively and random.random() < CHANGE
        match command:
            case AgentCommand.HOSTNAME:
                return json.dumps({"return": {"host-name": self.name.replace("_", "-")}})
            case AgentCommand.USERS:
                self._users = random.randint(0, 5) if changed else self._users
                users = [{"user": f"user{n}", "login-time": 1770000000.5 + n} for n in range(self._users)]
                return json.dumps({"return": users})
            case AgentCommand.INTERFACES if self._addresses or changed:
                self._addresses = random.randint(0, 3) if changed else self._addresses
                more = [
                    {"ip-address-type": "ipv4", "ip-address": f"10.9.8.{n + 1}", "prefix": 24}
                    for n in range(self._addresses)
                ]
                *rest, last = REPLIES[command]["return"]
                return json.dumps({"return": [*rest, last | {"ip-addresses": [*last["ip-addresses"], *more]}]})
            case AgentCommand.FILESYSTEMS if self._lively:
                self._used += random.randint(0, 4096)
                first, *rest = REPLIES[command]["return"]
                return json.dumps({"return": [first | {"used-bytes": first["used-bytes"] + self._used}, *rest]})
        return SAME[command]


class SimulatedHost:
    """Implements `collectors.host.Host` as `LibvirtHost` does."""

    def __init__(
        self, uri: str, connections: int, on_hint: OnHint, guests: Sequence[SimulatedGuest], threads: Threads
    ) -> None:
        self.uri = uri
        self.name = ""
        self.lost = asyncio.Event()
        self.asked = 0
        """Commands that were sent to agents."""
        self._guests = {guest.uuid: guest for guest in guests}
        self._connections = connections
        self._on_hint = on_hint
        self._open = False
        self._threads = threads
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._places: asyncio.LifoQueue[int] | None = None
        self._suspects: asyncio.LifoQueue[int] | None = None

    async def open(self) -> None:
        """Connect and listen for events."""
        self.lost = asyncio.Event()
        self.name = self.uri.rpartition("/")[2]
        self._places = places(range(self._connections))
        self._suspects = places(range(SUSPECT_CALLS))
        self._open = True
        for guest in self._guests.values():
            guest.told = lambda hint, uuid=guest.uuid: self._on_hint(uuid, hint)  # type: ignore[misc]

    async def close(self) -> None:
        """Disconnect."""
        self._open, self._places, self._suspects = False, None, None

    def shutdown(self) -> None:
        """Nothing is held."""

    async def list(self) -> list[str]:
        """UUIDs of all domains. Raises NotConnected."""
        return await self._look_up(lambda: [*self._guests])

    async def domain(self, uuid: str) -> Domain | None:
        """A domain's present state; None when it does not exist. Raises NotConnected."""

        def look() -> Domain | None:
            guest = self._guests.get(uuid)
            return domain.parse(guest.xml(), guest.phase) if guest else None

        return await self._look_up(look)

    async def ask(self, uuid: str, command: AgentCommand, timeout: int, *, suspect: bool = False) -> Reply:  # noqa: ASYNC109
        """One agent command, with the places, limits and errors of `LibvirtHost.ask`."""
        room = self._suspects if suspect else self._places
        if room is None:
            raise NotConnected(f"{self.uri}: not connected")
        if suspect and room.empty():
            raise Busy("other agents that do not answer are being asked")
        place = await room.get()
        try:
            if (guest := self._guests.get(uuid)) is None:
                raise AgentRefused(f"Domain not found: no domain with matching uuid '{uuid}'")
            async with guest.channel:
                self.asked += 1
                reply = await self._answer(guest, command, timeout)
            return await self._threads.run(partial(parse, command, reply))
        finally:
            room.put_nowait(place)

    async def _answer(self, guest: SimulatedGuest, command: AgentCommand, timeout: int) -> str:  # noqa: ASYNC109
        if guest.phase is not Phase.RUNNING:
            raise NotRunning("Requested operation is not valid: domain is not running")
        if not guest.connected:
            raise AgentUnresponsive("Guest agent is not responding: QEMU guest agent is not connected")
        if not guest.awake.is_set():
            try:
                await asyncio.wait_for(guest.awake.wait(), timeout if guest.in_step else SYNC_SECONDS)
            except TimeoutError as error:
                guest.in_step = False
                raise AgentUnresponsive("Guest agent is not responding: Guest agent not available for now") from error
        guest.in_step = True
        await asyncio.sleep(random.uniform(*ANSWER_SECONDS))
        return guest.reply(command)

    async def _look_up(self, call: Callable[[], T]) -> T:
        if not self._open:
            raise NotConnected(f"{self.uri}: not connected")

        def look() -> T:
            time.sleep(LOOKUP_SECONDS)
            return call()

        async with self._lookups:
            return await self._threads.run(look)
