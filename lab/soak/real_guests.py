"""The two real guests: what changes in them, through their control port, and what their agents say themselves."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from lab.errors import LabError
from lab.guest import Guest
from lab.soak.truth import COMMANDS

PAUSE = (0.5, 3.0)
START_SECONDS = 60.0
"""Patience with a libvirt daemon that may be away itself."""


class RealGuest:
    """One of them. Its control port takes one command at a time."""

    def __init__(self, guest: Guest, name: str, seed: str) -> None:
        self.guest = guest
        self.name = name
        self._random = random.Random(f"{seed}/{name}")  # noqa: S311
        self._port = asyncio.Lock()
        self._users: set[str] = set()
        self._addresses: set[str] = set()
        self._mounts: set[str] = set()
        self._count = 0

    async def change(self, stop: asyncio.Event) -> None:
        """One change after another, until `stop`."""
        while not stop.is_set():
            async with self._port:  # what is next follows from what is there, and a crash changes that
                await asyncio.to_thread(self.guest.control, *self._next())
            await asyncio.sleep(self._random.uniform(*PAUSE))

    async def hang(self, seconds: float) -> None:
        """Its agent does not answer for so long."""
        await self.control("agent", "hang")
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.control("agent", "wake")

    async def crash(self, seconds: float) -> None:
        """Its machine is killed, and started again after so long; nothing changes in it meanwhile."""
        async with self._port:
            await asyncio.to_thread(self.guest.kill)
            await asyncio.sleep(seconds)
            await self._start()
            await asyncio.to_thread(self.guest.wait_agent, 2 * START_SECONDS)
            for lost in (self._users, self._addresses, self._mounts):
                lost.clear()

    async def _start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return await asyncio.to_thread(self.guest.start)
            except LabError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.5)

    async def control(self, *words: str) -> None:
        """Something happens in it."""
        async with self._port:
            await asyncio.to_thread(self.guest.control, *words)

    async def replies(self) -> dict[str, Any] | None:
        """What its agent says now; None when it does not answer."""
        try:
            return {name: await asyncio.to_thread(self.guest.agent_command, name) for name in COMMANDS}
        except LabError:
            return None

    def _next(self) -> tuple[str, ...]:
        self._count += 1
        pick = self._random
        match pick.choices(("user", "address", "mount", "fill", "hostname", "restart"), (6, 6, 2, 2, 1, 1))[0]:
            case "user":
                user = pick.choice(("alice", "bob", "carol"))
                return ("login" if self._toggled(self._users, user) else "logout", user)
            case "address":
                address = f"10.40.0.{pick.randint(1, 5)}/32"  # in a network of its own: none goes with another
                return ("address", "add" if self._toggled(self._addresses, address) else "del", "eth0", address)
            case "mount":
                mount = f"/mnt{pick.randint(1, 3)}"
                return ("filesystem", "add" if self._toggled(self._mounts, mount) else "del", mount)
            case "fill":
                return ("fill", "/data", str(pick.randint(0, 20)))
            case "hostname":
                return ("hostname", f"{self.name}-{self._count}")
        return ("agent", "restart")

    def _toggled(self, there: set[str], one: str) -> bool:
        """Whether it is there now."""
        there ^= {one}
        return one in there
