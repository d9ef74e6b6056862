"""
Answers that go on for as long as the client stays, or the order of changes lets them.

A stream is a position in that order (`fleet`), so it costs no more than its connection. What it tells, and in which
words, is its subclass's: `watch`, `live`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.answers import streamed
from api.fleet import Fleet, Sleeper
from api.fleet import Scope as Guests

UNHELD = (b"x-accel-buffering", b"no")
"""Or nginx keeps what comes behind a full buffer until there is more."""


class Stream(Response):
    """One client's. `valid` tells whether it may go on; who makes that false wakes the fleet's sleepers."""

    content_type: str

    def __init__(self, fleet: Fleet, scope: Guests, valid: Callable[[], bool]) -> None:
        super().__init__()
        self._fleet = fleet
        self._generation = fleet.generation
        self._floor = fleet.floor
        """Who went before that, is of no interest any more."""
        self._valid = valid
        self._sleeper = Sleeper(fleet, scope)
        self._left = False
        self._told = 0
        """All changes up to this revision have been told."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await send({"type": "http.response.start", "status": 200, "headers": streamed(self.content_type, UNHELD)})
        if scope["method"] != "HEAD":
            leaving = asyncio.create_task(self._notice(receive))
            try:
                await self._run(send)
            finally:
                leaving.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _run(self, send: Send) -> None:
        raise NotImplementedError

    async def _notice(self, receive: Receive) -> None:
        """A client that has left is noticed at once."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._wake()

    async def _sleep(self, until: float) -> None:
        """Until there may be something to tell, or that time of the loop has come."""
        timer = asyncio.get_running_loop().call_at(until, self._wake)
        self._told = await self._sleeper.sleep(self._told)
        timer.cancel()

    def _wake(self) -> None:
        self._sleeper.wake(self._fleet.revision + 1)

    def _lost(self) -> bool:
        """Whether it cannot go on: positions of another stream, or too far behind to know who went."""
        floor = self._fleet.floor if self._fleet.floor > self._floor else 0
        return self._generation != self._fleet.generation or self._told < floor
