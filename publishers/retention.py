"""
Guests that are gone leave the stream: `publish.retention` after its last word, all messages about a guest are deleted.

Each collector does so for guests that its own hosts published last. Where their host is gone too, nobody did so: after
twice the time any collector of the cluster does. What was published after the last word that was seen stays, so a guest
that returns in the very moment loses nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from guestwire import client
from guestwire.errors import NotConnected
from guestwire.jetstream import Bus, Message
from guestwire.last_word import is_gone
from guestwire.lifecycle import sleep_unless
from guestwire.logs import logger
from guestwire.snapshot import GuestRef, Kind
from publishers import metrics

log = logger("publisher")

SHORTEST, LONGEST = 60.0, 24 * 3600.0
"""Seconds between two sweeps; a tenth of the retention in between. Each reads the agent record of every guest."""


class Retention:
    """Of one collector process; `hosts` tells the names of its hosts."""

    def __init__(self, bus: Bus, cluster: str, hosts: Callable[[], Collection[str]], retention: float) -> None:
        self._bus = bus
        self._cluster = cluster
        self._hosts = hosts
        self._retention = retention

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep from time to time until `stop`."""
        while not await sleep_unless(stop, min(max(self._retention / 10, SHORTEST), LONGEST)):
            try:
                await self.sweep(time.time())
            except NotConnected as error:
                log.warning("cannot delete guests that are gone, trying later", error=str(error))

    async def sweep(self, now: float) -> list[GuestRef]:
        """Delete what is due at `now` (seconds since the epoch); the guests. Raises NotConnected."""
        hosts = set(self._hosts())
        due = [
            message
            async for message in client.follow(self._bus, cluster=self._cluster, kind=Kind.AGENT, live=False)
            if message.event.time.timestamp() <= now - self._retention * (1 if message.event.host in hosts else 2)
            and is_gone(message.body)
        ]
        for message in due:
            await self._delete(message)
        return [message.address.ref for message in due]

    async def _delete(self, last: Message) -> None:
        ref = last.address.ref
        await self._bus.delete(self._cluster, ref, last.revision)
        metrics.DELETED.inc()
        log.info("guest deleted from the stream", guest=str(ref))
