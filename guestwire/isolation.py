"""
Leaving a server that is connected to us and cut off from the rest of its cluster.

Such a server takes what it is given, answers pings, and keeps its connections. JetStream gives no answer through it, as
no leader can be reached, and nats-py would stay with it for ever. So who waits for JetStream in vain says so, and who
was answered too; when nothing was heard for long, another server is taken, as long as one is known.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client, Server

from guestwire.errors import TransientError, Unanswered
from guestwire.logs import logger

log = logger("bus")

PATIENCE = 15.0
"""Seconds without an answer; an election is over by then."""
PAUSE = 1.0
"""Seconds before a server is tried that could not be had before."""


class Isolation:
    """What one connection has heard of JetStream; `client` gives the connection as it is now."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._since: float | None = None
        self._left = ""
        self._leaving: asyncio.Task[None] | None = None

    def answered(self) -> None:
        """JetStream is there."""
        self._since = None

    def failed(self, error: TransientError) -> None:
        """Somebody has waited in vain, perhaps once more; what failed in another way says nothing of the server."""
        if not isinstance(error, Unanswered):
            return
        client = self._client()
        if not client.is_connected:
            self._since = None
            return
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= PATIENCE and len(client.servers) > 1 and client.connected_url:
            self._since = None
            self._left = client.connected_url.netloc
            log.warning("JetStream does not answer through this server, trying another", server=self._left)
            self._leaving = asyncio.create_task(client.force_reconnect(), name="leave a server")

    def choose(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server | None, float]:
        """Where to reconnect, and after how many seconds: anywhere but at the server that was left, if possible."""
        others = [server for server in servers if server.uri.netloc != self._left]
        self._left = ""
        chosen = random.choice(others or servers)  # noqa: S311 - no secret
        return chosen, PAUSE if chosen.reconnects else 0.0
